"""Puts a reply together from the raw events of its stream; each block is parsed once, when it is whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from services.jobs.models import Usage

FragmentType = Literal["text", "thinking", "tool_input"]
INTERRUPTED = "interrupted"
"""The stop reason of a reply that its user broke off."""
_CHARACTERS_PER_TOKEN = 3
_MOST_TOKENS = 2**40
"""A count above this is no reply's, and Postgres could not add up many of them."""


class StreamBrokenError(Exception):
    """The stream ended, or made no sense, before the reply was whole: throw it away and ask again."""


class StreamFailedError(Exception):
    """The service itself broke the reply off, with an `error` event. ``kind``: its type; ``code``: of its details."""

    def __init__(self, kind: str, words: str, code: str | None = None) -> None:
        super().__init__(words)
        self.kind = kind
        self.code = code


@dataclass(frozen=True)
class Fragment:
    """A piece of the reply as it streams; never the only record."""

    type: FragmentType
    block: int
    text: str


@dataclass(frozen=True)
class Reply:
    content: list[dict[str, Any]]
    """Blocks as they are sent back to the API; a tool input that is no JSON object stands as `{"malformed": text}`."""
    stop_reason: str
    model: str
    usage: Usage
    raw_usage: dict[str, Any] = field(default_factory=dict)
    """As the service told it."""


@dataclass
class _Block:
    start: dict[str, Any]
    pieces: list[str] = field(default_factory=list)
    signature: list[str] = field(default_factory=list)

    def finished(self) -> dict[str, Any]:
        match self.start["type"]:
            case "text":
                return {"type": "text", "text": _joined(self.pieces)}
            case "thinking":
                signature = "".join(self.signature) or self.start.get("signature") or ""
                return {"type": "thinking", "thinking": _joined(self.pieces), "signature": signature}
            case "tool_use":
                return {**self.start, "input": _parsed(self.start, _joined(self.pieces))}
            case "compaction":
                return {**self.start, "content": _joined(self.pieces) or self.start.get("content")}
            case _:
                return self.start


# The payload's field of each delta type, and what watchers call it.
_DELTAS: dict[str, tuple[str, FragmentType | None]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("partial_json", "tool_input"),
    "compaction_delta": ("content", None),
}


class Assembly:
    """Feed it the JSON of each event in order; ``reply()`` once the stream has ended."""

    def __init__(self, on_fragment: Callable[[Fragment], None]) -> None:
        self._on_fragment = on_fragment
        self._blocks: dict[int, _Block] = {}
        self._model = ""
        self._stop_reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._is_output_told = False
        self._whole = False

    def feed(self, event: Any) -> None:
        """Unknown events and deltas are ignored: the API may add some.

        Raises ``StreamBrokenError`` for a known one that lacks what it must have, ``StreamFailedError`` for an `error`.
        """
        try:
            fragment = self._taken(event)
        except (AttributeError, KeyError, TypeError) as error:
            raise StreamBrokenError(f"an event of the wrong shape: {error!r}") from error
        if fragment is not None:
            self._on_fragment(fragment)

    def _taken(self, event: Any) -> Fragment | None:
        match event["type"]:
            case "content_block_delta":
                return self._added(event["index"], event["delta"])
            case "content_block_start":
                return self._began(event["index"], event["content_block"])
            case "message_start":
                self._model = _string(event["message"]["model"])
                self._count(event["message"]["usage"])
            case "message_delta":
                self._stop_reason = _string(event["delta"].get("stop_reason") or self._stop_reason or "") or None
                usage = event.get("usage") or {}
                self._count(usage)
                self._is_output_told |= usage.get("output_tokens") is not None
            case "message_stop":
                self._whole = True
            case "error":
                raise _failed(event["error"])
        return None

    def _began(self, index: int, start: dict[str, Any]) -> Fragment | None:
        kind = str(start["type"])
        if kind == "tool_use" and not (_string(start["id"]) and _string(start["name"])):
            raise StreamBrokenError("a tool_use without its id or its name")
        if kind == "tool_use" and not _is_object(start.get("input") or {}):
            raise StreamBrokenError("a tool_use that begins with something else than an object")
        if not isinstance(index, int):  # blocks are put in its order
            raise TypeError(f"{index!r} is no index")
        self._blocks[index] = _Block({**start, "type": kind})
        if kind in {"text", "thinking"} and start.get(kind):  # its first words: deltas are added to them
            return self._added(index, {"type": f"{kind}_delta", kind: start[kind]})
        return None

    def _added(self, index: int, delta: dict[str, Any]) -> Fragment | None:
        block = self._blocks.get(index)
        if block is None:
            raise StreamBrokenError(f"a delta of block {index}, which never began")
        kind = delta["type"]
        if kind == "signature_delta":
            block.signature.append(_string(delta["signature"]))
        elif kind in _DELTAS:
            name, fragment_type = _DELTAS[kind]
            if delta[name] is None:
                return None
            text = _string(delta[name])
            block.pieces.append(text)
            return Fragment(fragment_type, index, text) if fragment_type is not None else None
        return None

    def _count(self, usage: dict[str, Any] | None) -> None:
        """Usage in `message_delta` is cumulative: the last number of each kind stands."""
        told = {name: value for name, value in (usage or {}).items() if value is not None}
        counts = {name: value for name, value in told.items() if name in Usage.__dataclass_fields__}
        if not all(isinstance(count, int) and 0 <= count <= _MOST_TOKENS for count in counts.values()):
            raise StreamBrokenError(f"usage that is no number of tokens: {counts}")
        self._usage |= told

    def reply(self) -> Reply:
        """Raises ``StreamBrokenError`` where the stream ended without `message_stop`: nothing else would tell."""
        if not self._whole or self._stop_reason is None:
            raise StreamBrokenError("the stream ended before the reply was whole")
        if not self._is_output_told:
            self._estimate_output()
        content = [block.finished() for _, block in sorted(self._blocks.items())]
        # The API refuses blank text blocks when they are sent back.
        content = [block for block in content if block["type"] != "text" or block["text"].strip()]
        return Reply(content, self._stop_reason, self._model, self._used(), self._usage)

    def interrupted(self) -> Reply:
        """What there is of a reply that was broken off: the text. Its output is estimated where it was not told yet."""
        blocks = [block for _, block in sorted(self._blocks.items())]
        texts = [block.finished() for block in blocks if block.start["type"] == "text"]
        content = [text for text in texts if text["text"].strip()]
        if self._usage and not self._is_output_told:
            self._estimate_output()
        return Reply(content, INTERRUPTED, self._model, self._used(), self._usage)

    def _estimate_output(self) -> None:
        """What `message_start` tells of it is only its first tokens."""
        length = sum(len(piece) for block in self._blocks.values() for piece in block.pieces)
        estimate = max(self._used().output_tokens, length // _CHARACTERS_PER_TOKEN)
        self._usage |= {"output_tokens": estimate, "output_is_estimated": True}

    def _used(self) -> Usage:
        return Usage(**{name: self._usage.get(name, 0) for name in Usage.__dataclass_fields__})


def _failed(error: dict[str, Any]) -> StreamFailedError:
    kind, details = str(error["type"]), error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    return StreamFailedError(kind, str(error.get("message") or kind), code if isinstance(code, str) else None)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _joined(pieces: list[str]) -> str:
    """The whole text; a character may come as two surrogates in two pieces, and one alone cannot be stored."""
    text = "".join(pieces)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _parsed(start: dict[str, Any], text: str) -> dict[str, Any]:
    if not text:
        return start.get("input") or {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {"malformed": text}
    return value if _is_object(value) else {"malformed": text}


def _is_object(value: Any) -> bool:
    """Whether ``value`` is a JSON object that can be sent back. More can be parsed than can be encoded again: in a
    message, it may be some 250 levels deep.
    """
    if not isinstance(value, dict):
        return False
    try:
        orjson.dumps([[[[[value]]]]])
    except TypeError:
        return False
    return True
