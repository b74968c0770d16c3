"""The Messages API's requests and errors as data. Lenient about fields it does not use; knows nothing of the script."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

MODEL_NAME = "quarterdeck-offline"

ErrorKind = Literal[
    "invalid_request_error", "authentication_error", "not_found_error", "request_too_large", "api_error"
]


class RequestError(Exception):
    """A request that the API refuses; carries what the answer needs."""

    def __init__(self, message: str, *, kind: ErrorKind = "invalid_request_error", status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.status = status

    def envelope(self, request_id: str) -> dict[str, Any]:
        return {
            "type": "error",
            "error": {"type": self.kind, "message": self.message},
            "request_id": request_id,
        }


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class TextBlock(_Lenient):
    type: Literal["text"]
    text: Annotated[str, Field(min_length=1)]


class ToolUseBlock(_Lenient):
    type: Literal["tool_use"]
    id: Annotated[str, Field(min_length=1)]
    name: str
    input: dict[str, Any]


class OtherBlock(_Lenient):
    """A block that the script does not look into: thinking, an image, a document."""

    type: str


def _block_tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in {"text", "tool_use", "tool_result"} else "other"


def _as_blocks(content: Any) -> Any:
    """A string is short for one text block."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _as_result_blocks(content: Any) -> Any:
    # An empty result is allowed, an empty text block is not.
    return _as_blocks(content) if content else []


ResultPart = Annotated[
    Annotated[TextBlock, Tag("text")] | Annotated[OtherBlock, Tag("other")],
    Discriminator(lambda value: "text" if _block_tag(value) == "text" else "other"),
]


class ToolResultBlock(_Lenient):
    type: Literal["tool_result"]
    tool_use_id: Annotated[str, Field(min_length=1)]
    content: Annotated[list[ResultPart], BeforeValidator(_as_result_blocks)] = []
    is_error: bool | None = None

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.content if isinstance(part, TextBlock))


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[OtherBlock, Tag("other")],
    Discriminator(_block_tag),
]


class Message(_Lenient):
    role: Literal["user", "assistant", "system"]
    content: Annotated[list[Block], Field(min_length=1), BeforeValidator(_as_blocks)]


class Tool(_Lenient):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    input_schema: dict[str, Any] = {}


class ToolChoice(_Lenient):
    type: Literal["auto", "any", "tool", "none"]
    disable_parallel_tool_use: bool = False


class CountRequest(_Lenient):
    """What `POST /v1/messages/count_tokens` takes."""

    model: Annotated[str, Field(min_length=1)]
    messages: Annotated[list[Message], Field(min_length=1)]
    tools: list[Tool] = []


class MessagesRequest(CountRequest):
    """What `POST /v1/messages` takes, as far as the stand-in looks at it."""

    max_tokens: Annotated[int, Field(ge=1, strict=True)]
    stream: bool = False
    tool_choice: ToolChoice | None = None


Request = TypeVar("Request", bound=CountRequest)


def decode(body: bytes) -> dict[str, Any]:
    """Return the JSON object in ``body``; raises ``RequestError``."""
    try:
        decoded = orjson.loads(body)
        # Usage is counted in encoded bytes, and what is nested too deeply can be decoded but not encoded.
        orjson.dumps(decoded)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"The request body is not valid JSON: {error}") from error
    except orjson.JSONEncodeError as error:
        raise RequestError(f"The request body cannot be read: {error}") from error
    if not isinstance(decoded, dict):
        raise RequestError(f"The request body must be a JSON object, not {type(decoded).__name__}")
    return decoded


def validate(kind: type[Request], decoded: dict[str, Any]) -> Request:
    """Return ``decoded`` as ``kind``; raises ``RequestError`` that names the first wrong field by its path."""
    try:
        return kind.model_validate(decoded)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(str(part) for part in problem["loc"])
        raise RequestError(f"{path}: {problem['msg']}") from error
