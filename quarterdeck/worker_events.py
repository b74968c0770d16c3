"""The events of a Worker session, as its stream tells them. It does no I/O."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from httpx_sse import ServerSentEvent
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass

from quarterdeck.worker_errors import Code, WorkerError

_READ = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


@dataclass(frozen=True, kw_only=True, config=_READ)
class _Told:
    """``id``: opaque; `interactive.attach` goes on behind it. ``timestamp``: ISO 8601."""

    id: str
    timestamp: str


@dataclass(frozen=True, kw_only=True, config=_READ)
class Connected(_Told):
    message: str
    event: Literal["connected"] = "connected"


@dataclass(frozen=True, kw_only=True, config=_READ)
class Status(_Told):
    message: str
    event: Literal["status"] = "status"


@dataclass(frozen=True, kw_only=True, config=_READ)
class ClaudeStart(_Told):
    turn: int
    prompt: str
    event: Literal["claude_start"] = "claude_start"


@dataclass(frozen=True, kw_only=True, config=_READ)
class ClaudeDelta(_Told):
    """``content``: a piece of what the model writes."""

    turn: int
    content: str
    event: Literal["claude_delta"] = "claude_delta"


@dataclass(frozen=True, kw_only=True, config=_READ)
class ClaudeEnd(_Told):
    turn: int
    event: Literal["claude_end"] = "claude_end"


@dataclass(frozen=True, kw_only=True, config=_READ)
class FileChange(_Told):
    message: str
    workspace_dir: str
    event: Literal["file_change"] = "file_change"


@dataclass(frozen=True, kw_only=True, config=_READ)
class Complete(_Told):
    """The last event of a session that went well. ``outcome``: such as `no_changes`."""

    session_id: str
    turns: int
    outcome: str | None = None
    summary: str | None = None
    pull_request_url: str | None = None
    event: Literal["complete"] = "complete"


@dataclass(frozen=True, kw_only=True, config=_READ)
class Failed(_Told):
    """The last event of a session that did not go well: `error` on the wire."""

    message: str
    event: Literal["error"] = "error"


SessionEvent: TypeAlias = Connected | Status | ClaudeStart | ClaudeDelta | ClaudeEnd | FileChange | Complete | Failed

_KINDS: frozenset[str] = frozenset(kind.event for kind in get_args(SessionEvent))
_ADAPTER: TypeAdapter[SessionEvent] = TypeAdapter(Annotated[SessionEvent, Field(discriminator="event")])


def decode(sse: ServerSentEvent) -> SessionEvent | None:
    """None where it is only a comment, or of a kind that a later server may have. Raises WorkerError."""
    if not sse.data or sse.event not in _KINDS:
        return None
    try:
        data = sse.json()
        return _ADAPTER.validate_python({**data, "event": sse.event, "id": sse.id})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise _unreadable(sse, f"{first['loc'][-1]}: {first['msg']}") from error
    except (ValueError, TypeError) as error:
        raise _unreadable(sse, str(error)) from error


def _unreadable(sse: ServerSentEvent, why: str) -> WorkerError:
    return WorkerError(Code.PROTOCOL_ERROR, f"The event {sse.event} cannot be read ({why}).")
