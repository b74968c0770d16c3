"""What the models of every API surface are made of: how they read and write, and the kinds of text in them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from services.contracts.text import is_storable


class FieldError(ValueError):
    """A rule over several fields failed; ``field`` is the path to name in the answer."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def refuse_unstorable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("must not contain NUL or lone surrogates")
    return text


def refuse_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _refuse_bad_branch(name: str) -> str:
    """As `git check-ref-format --branch` does, of what the pattern lets through."""
    parts = name.split("/")
    if ".." in name or name.endswith(".") or any(not p or p[0] == "." or p.endswith(".lock") for p in parts):
        raise ValueError("is no name for a branch: no part may be empty, begin with a dot or end in .lock or a dot")
    return name


Text = Annotated[str, AfterValidator(refuse_unstorable)]
CommandPattern = Annotated[Text, Field(min_length=1, max_length=500), AfterValidator(refuse_blank)]
Name = Annotated[Text, Field(min_length=1, max_length=200), AfterValidator(refuse_blank)]
Ref = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/+@-]*$",
        description="a branch, a tag or a commit SHA",
    ),
]
BranchName = Annotated[
    str,
    Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"),
    AfterValidator(_refuse_bad_branch),
]
Metadata = Annotated[
    dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], Annotated[Text, Field(max_length=2_000)]],
    Field(max_length=32),
]


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Request(Model):
    """What a client sends: unknown fields are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=False, frozen=True, extra="forbid", strict=True
    )


class Both(Model):
    """What a client may read, change and send back: unknown fields are refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", strict=True)
