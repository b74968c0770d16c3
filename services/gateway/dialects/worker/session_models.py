"""The bodies and parameters of interactive sessions, in their document's words."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel

from services.contracts.agents import ApiKey, MaxTurns
from services.contracts.model import FieldError, Ref, Text, refuse_blank
from services.contracts.rest import MAX_PROMPT_CHARACTERS
from services.contracts.words import PermissionMode
from services.gateway.dialects.dialect import LooseQuery

DEFAULT_TURNS = 10
MAX_ID_CHARACTERS = 200
_ID_WORDS = (
    f"must have 1 to {MAX_ID_CHARACTERS} printable characters, no slash, and no space at its ends; `.` and `..` are "
    "no ids"
)


def _refuse_odd_id(text: str) -> str:
    """What cannot stand in a path or a header."""
    is_sized = 1 <= len(text) <= MAX_ID_CHARACTERS
    if not is_sized or not text.isprintable() or "/" in text or text.strip() != text or text in (".", ".."):
        raise ValueError(_ID_WORDS)
    return text


SessionId = Annotated[str, AfterValidator(_refuse_odd_id)]


FULL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*", re.ASCII)


def _refuse_odd_name(text: str) -> str:
    """Also `owner/..`, which leads elsewhere."""
    if not FULL_NAME.fullmatch(text):
        raise ValueError("must be `owner/repo`, of letters, digits and `-_.`")
    return text


RepositoryName = Annotated[str, Field(max_length=200), AfterValidator(_refuse_odd_name)]


class _Body(BaseModel):
    """Fields that the document does not have are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=False, frozen=True, extra="ignore", strict=True
    )


class OnDisconnect(StrEnum):
    CONTINUE = "continue"
    CANCEL = "cancel"


class RepositoryChoice(_Body):
    """One of ``url`` and ``name`` is needed; of both, the URL counts."""

    url: Annotated[Text, Field(max_length=2_000)] | None = None
    name: RepositoryName | None = Field(None, description="`owner/repo`, on the GitHub that the server works with")
    branch: Ref | None = Field(None, description="where the work starts; default: the remote's default branch")


def _named(value: Any) -> Any:
    """`"owner/repo"`, as published clients send it, is a name, or a URL where it looks like one."""
    if not isinstance(value, str):
        return value
    return {"url": value} if ":" in value or value.startswith("/") else {"name": value}


class StartOptions(_Body):
    max_turns: MaxTurns | None = Field(None, description=f"most model requests; default: {DEFAULT_TURNS}")
    permission_mode: Annotated[PermissionMode, Field(strict=False)] | None = Field(
        None, description="default: `acceptEdits`"
    )
    create_pr: bool | None = Field(
        None, alias="createPR", description="publish the change as a pull request; default: it is only stored"
    )
    on_disconnect: Annotated[OnDisconnect, Field(strict=False)] | None = Field(
        None, description="what becomes of the work where the client leaves before its end; default: `continue`"
    )


class StartRequest(_Body):
    session_id: SessionId | None = Field(None, description="default: one that is made up")
    prompt: Annotated[Text, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS), AfterValidator(refuse_blank)]
    repository: Annotated[RepositoryChoice | None, BeforeValidator(_named)] = Field(
        None, description="an object, or `owner/repo`; default: none"
    )
    anthropic_api_key: ApiKey | None = Field(None, description="for this session alone; kept encrypted")
    anthropic_base_url: Annotated[Text, Field(min_length=1, max_length=2_000)] | None = Field(
        None, description="one of the addresses that the server allows"
    )
    github_token: ApiKey | None = Field(None, description="for this session alone; kept encrypted")
    options: StartOptions | None = None

    @field_validator("repository")
    @classmethod
    def _needs_a_place(cls, repository: RepositoryChoice | None) -> RepositoryChoice | None:
        if repository is not None and not repository.url and not repository.name:
            raise FieldError("repository", "needs a `url` or a `name`: `owner/repo`")
        return repository

    @field_validator("options")
    @classmethod
    def _needs_a_repository(cls, options: StartOptions | None, info: ValidationInfo) -> StartOptions | None:
        if options and options.create_pr and "repository" in info.data and info.data["repository"] is None:
            raise FieldError("options.createPR", "a pull request needs a `repository`")
        return options

    @property
    def wishes(self) -> StartOptions:
        return self.options or StartOptions()


class SessionQuery(LooseQuery):
    session_id: SessionId = Field(description="the session's id")


class AttachQuery(SessionQuery):
    last_event_id: Annotated[str, Field(max_length=100)] | None = Field(
        None, description="as the header `Last-Event-ID`, which goes before it"
    )


class SessionRepository(_Body):
    name: str
    branch: str | None = Field(
        None, exclude_if=lambda value: value is None, description="left out until it is known which one is the default"
    )


class SessionStatus(_Body):
    """Times are milliseconds since 1970."""

    model_config = ConfigDict(populate_by_name=True)

    session_id: str
    status: Literal["processing", "completed", "error"]
    current_turn: int
    repository: SessionRepository | None = Field(
        None, exclude_if=lambda value: value is None, description="left out where the session has none"
    )
    created_at: int
    last_activity_at: int
    completed_at: int | None = Field(None, exclude_if=lambda value: value is None, description="once it has ended")
    error_message: str | None = Field(None, exclude_if=lambda value: value is None, description="of an `error`")


class SessionEnded(BaseModel):
    success: Literal[True] = True
    message: str
