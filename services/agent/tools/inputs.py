"""Turns a model's arguments into checked inputs, and says in words and JSON schema what fits."""

from abc import ABC, abstractmethod
from functools import cache
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from services.agent.tools.calls import MalformedInputError, Outcome, ToolSpec
from services.agent.tools.showing import shortened, visible_line
from services.agent.workspace.paths import MAX_PATH_CHARACTERS

_MAX_PROBLEMS = 5
_NAME_CHARACTERS = 60


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character: take it out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds a lone surrogate: send valid Unicode") from error
    return text


Text = Annotated[str, AfterValidator(_storable)]
FilePath = Annotated[Text, Field(max_length=MAX_PATH_CHARACTERS, description="Path relative to the workspace's root")]


class Input(BaseModel):
    """The arguments of one tool: nothing is converted, nothing unknown is let through."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


I = TypeVar("I", bound=Input)  # noqa: E741 - the usual name of an input's type variable


class InputTool(ABC, Generic[I]):
    """A tool whose schema is a pydantic model."""

    name: ClassVar[str]
    description: ClassVar[str]
    writes: ClassVar[bool] = False
    outside: ClassVar[bool] = False
    subject_fields: ClassVar[tuple[str, ...]] = ("path",)
    input_model: type[I]

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(self.name, self.description, schema_of(self.input_model), self.writes, self.outside)

    def subject(self, arguments: Any) -> str:
        fields = arguments if isinstance(arguments, dict) else {}
        named = [fields.get(name) for name in self.subject_fields]
        return " → ".join(value for value in named if isinstance(value, str) and value)

    async def run(self, arguments: Any) -> Outcome:
        return await self.execute(parsed(self.input_model, self.name, arguments))

    @abstractmethod
    async def execute(self, arguments: I) -> Outcome:
        """Do it. Raises ``ToolError`` or ``WorkspaceError``."""


@cache
def schema_of(model: type[Input]) -> dict[str, Any]:
    """The JSON schema of ``model`` without what only repeats the names (titles) or says optional twice (null)."""
    schema = model.model_json_schema()
    fields = {name: _plain(field) for name, field in schema.get("properties", {}).items()}
    return {
        "type": "object",
        "properties": fields,
        "required": schema.get("required", []),
        "additionalProperties": False,
    }


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in field.items() if key not in {"title", "anyOf"}}
    for choice in field.get("anyOf", ()):
        if choice.get("type") != "null":
            plain |= choice
    if plain.get("default", ...) is None:
        del plain["default"]
    return plain


def parsed(model: type[I], name: str, arguments: Any) -> I:
    """``arguments`` as a ``model``. Raises ``MalformedInputError``: what was wrong, where, and what ``name`` takes."""
    if isinstance(arguments, str):
        raise MalformedInputError(
            f"The arguments of {name} were not valid JSON: send one JSON object. {_usage(model, name)}"
        )
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        words = "; ".join(f"{_where(problem['loc'])}: {problem['msg']}" for problem in problems[:_MAX_PROBLEMS])
        raise MalformedInputError(f"The arguments of {name} do not fit: {words}. {_usage(model, name)}") from error


def _where(location: tuple[int | str, ...]) -> str:
    spelled = ".".join(str(step) for step in location) or "the arguments"
    return shortened(visible_line(spelled), _NAME_CHARACTERS)


def _usage(model: type[Input], name: str) -> str:
    schema = schema_of(model)
    fields = (
        f"{field}{'' if field in schema['required'] else '?'}: {_kind(rules)}"
        for field, rules in schema["properties"].items()
    )
    return f"{name} takes {{{', '.join(fields)}}} and nothing else."


def _kind(rules: dict[str, Any]) -> str:
    if "enum" in rules:
        return " | ".join(f'"{choice}"' for choice in rules["enum"])
    bounds = [f"{word} {rules[key]}" for key, word in (("minimum", "≥"), ("maximum", "≤")) if key in rules]
    return " ".join([rules["type"], *bounds])
