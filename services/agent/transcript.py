"""A run's transcript: append-only, each message kept as the exact bytes that are stored and sent again.

Only the last message is kept parsed: a run's memory is its bytes. What is counted in it is counted from what is stored,
so that an attempt that goes on counts on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final, Literal

import orjson

from services.agent.prompts import prompt
from services.agent.tools import ToolCall, ToolResult
from services.agent.tools.finishing import AskUser
from services.agent.tools.outputs import OUTPUTS
from services.jobs.models import StoredMessage

Block = dict[str, Any]
Role = Literal["user", "assistant"]

_OF_USER: Final = b'{"role":"user"'
_BESIDE_THE_POINT: Final = frozenset(prompt(name) for name in ("cut_off", "paused", "nudge", "repeating"))
"""What the service says by itself, in answer to nothing but how the model replies."""
_PASSING: Final = re.compile(
    r"(?<!\d)\d++(?:\.\d++)?\s?(?:[nmµu]?s|secs?|seconds?|min(?:utes?)?|h(?:ours?)?)\b"  # how long it took
    r"|\d\d?:\d\d(?::\d\d(?:[.,]\d+)?)?"  # when it was
    r"|\d{4}-\d\d-\d\d"
    r"|0x[0-9a-fA-F]{6,16}"  # where in memory
    rf"|{OUTPUTS}\d+\.txt"  # where the rest of it is kept
)
"""What differs between two runs of one program that do just the same. Results may be long rows of digits: each is gone
over once, not again from each digit on.
"""


class Transcript:
    def __init__(self, stored: Sequence[StoredMessage], *, copied: int = 0) -> None:
        """``stored``: what earlier attempts left, in order. ``copied``: how many of its messages another run left, from
        which this one goes on; nothing is counted in those.
        """
        self.bodies: list[bytes] = [message.body for message in stored]
        self._copied = copied
        self._last: dict[str, Any] | None = orjson.loads(self.bodies[-1]) if self.bodies else None
        self._calls = b""
        """The newest turn's calls, hashed."""
        self.repeated = 0
        """How many turns in a row, up to the last message, made the same calls and heard the same, and nothing else."""
        self._count_stored()

    def __len__(self) -> int:
        return len(self.bodies)

    def append(self, role: Role, content: Sequence[Block]) -> StoredMessage:
        """Add a message and return it as it is to be stored, numbered from 1."""
        if role == "user":
            self.repeated = self.repeats_with(content)
            self._calls = _hashed_calls(self._last) if self.repeated else b""
        body = orjson.dumps({"role": role, "content": list(content)})
        self.bodies.append(body)
        # Loaded again, so that a resumed transcript is the same as this one in every detail.
        self._last = orjson.loads(body)
        return StoredMessage(len(self.bodies), role, body)

    @property
    def last_role(self) -> Role | None:
        return self._last["role"] if self._last else None

    def open_calls(self) -> list[ToolCall]:
        """The tool calls of the last message that nobody has answered yet."""
        if self._last is None or self.last_role != "assistant":
            return []
        return [_call(block) for block in self._last["content"] if block.get("type") == "tool_use"]

    def last_text(self) -> str:
        """The text of the last assistant message that has any."""
        for body in reversed(self.bodies):
            message = orjson.loads(body)
            if message["role"] == "assistant" and (text := _text(message["content"])):
                return text
        return ""

    def repeats_with(self, answer: Sequence[Block]) -> int:
        """What ``repeated`` is once the last message is answered so."""
        reply, place = self._last, len(self.bodies) - 1
        if reply is None or place < self._copied or not _is_exchange(reply, answer):
            return 0
        if not self.repeated or self._calls != _hashed_calls(reply):
            return 1
        # Parsed again only where it is needed.
        return self.repeated + 1 if _are_alike(_results(self._content(place - 1)), _results(answer)) else 1

    def _count_stored(self) -> None:
        newest = len(self.bodies) - (2 if self.last_role == "assistant" else 1)
        for place in range(newest, self._copied, -2):
            reply, answer = orjson.loads(self.bodies[place - 1]), orjson.loads(self.bodies[place])
            if answer["role"] != "user" or not _is_exchange(reply, answer["content"]):
                return
            calls, results = _hashed_calls(reply), _results(answer["content"])
            if place == newest:
                self._calls, first = calls, results
            elif calls != self._calls or not _are_alike(results, first):
                return
            self.repeated += 1

    def calls_answered_with(self, text: str) -> list[ToolCall]:
        """The calls of this run that the last message answers, where that ends with ``text``; else none."""
        place = len(self.bodies) - 1
        if self._last is None or self.last_role != "user" or place <= self._copied:
            return []
        if self._last["content"][-1:] != [{"type": "text", "text": text}]:
            return []
        return [_call(block) for block in self._content(place - 1) if block.get("type") == "tool_use"]

    def times_said(self, text: str) -> int:
        """How often a user message of ours said just ``text``: what a resumed loop counts its nudges by."""
        return self.bodies[self._copied :].count(_saying(text))

    def times_said_lately(self, text: str) -> int:
        """The same since the model was last told anything by its user, or of its work."""
        count = 0
        for place in reversed(range(self._copied, len(self.bodies))):
            body = self.bodies[place]
            if body == _saying(text):
                count += 1
            elif body.startswith(_OF_USER) and self._is_heard(place):
                break
        return count

    def _is_heard(self, place: int) -> bool:
        """Whether the user message there holds more than results of tools and what the service says by itself."""
        content = self._content(place)
        if _words(content) - _BESIDE_THE_POINT:
            return True
        return bool(_results(content)) and place > 0 and _only_asks(self._content(place - 1))

    def times_begun(self, mark: str) -> int:
        """How often a text in a user message of ours began with ``mark``."""
        return sum(body.count(_beginning(mark)) for body in self.bodies[self._copied :] if body.startswith(_OF_USER))

    def _content(self, place: int) -> list[Block]:
        content: list[Block] = orjson.loads(self.bodies[place])["content"]
        return content


def _beginning(mark: str) -> bytes:
    return orjson.dumps({"type": "text", "text": mark})[:-2]  # quotes within other strings are escaped


def _saying(text: str) -> bytes:
    return orjson.dumps({"role": "user", "content": [{"type": "text", "text": text}]})


def _call(block: Block) -> ToolCall:
    given = block["input"]
    malformed = given.get("malformed") if len(given) == 1 else None
    return ToolCall(block["id"], block["name"], malformed if isinstance(malformed, str) else given)


def _is_exchange(reply: Block, answer: Sequence[Block]) -> bool:
    """Whether ``reply`` made calls and ``answer`` is what they came to, and nothing besides."""
    if reply["role"] != "assistant" or not any(block.get("type") == "tool_use" for block in reply["content"]):
        return False
    return not _words(answer) - _BESIDE_THE_POINT and not _only_asks(reply["content"])


def _only_asks(reply: Sequence[Block]) -> bool:
    """Whether all that ``reply`` does is to ask the user: what that comes to, the user says."""
    return [block.get("name") for block in reply if block.get("type") == "tool_use"] == [AskUser.name]


def _words(answer: Sequence[Block]) -> set[str]:
    return {block["text"] for block in answer if block.get("type") == "text"}


def _results(answer: Sequence[Block]) -> list[str]:
    return [block["content"] for block in answer if block.get("type") == "tool_result"]


def _are_alike(results: Sequence[str], others: Sequence[str]) -> bool:
    """Whether both are the same but for what passes."""
    if len(results) != len(others):
        return False
    return all(one == other or _lasting(one) == _lasting(other) for one, other in zip(results, others, strict=True))


def _lasting(result: str) -> str:
    return _PASSING.sub("·", result)


def _hashed_calls(reply: Block | None) -> bytes:
    calls = [
        (block["name"], block["input"])
        for block in (reply["content"] if reply else ())
        if block.get("type") == "tool_use"
    ]
    return hashlib.blake2b(orjson.dumps(calls, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def _text(content: Sequence[Block]) -> str:
    return "\n\n".join(block["text"] for block in content if block["type"] == "text")


def is_answer(messages: Sequence[StoredMessage]) -> bool:
    """Whether ``messages`` are the one that has what a reply's calls came to."""
    if len(messages) != 1 or messages[0].role != "user":
        return False
    content: list[Block] = orjson.loads(messages[0].body)["content"]
    return bool(_results(content))


def result_blocks(results: Sequence[ToolResult]) -> list[Block]:
    """All results of a turn as one user message has them, in call order."""
    return [
        {
            "type": "tool_result",
            "tool_use_id": result.tool_use_id,
            "content": result.content,
            **({"is_error": True} if result.is_error else {}),
        }
        for result in results
    ]
