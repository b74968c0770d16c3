"""What the scripted model says: replies as server-sent events, and the conversations that measures lead. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

Block = dict[str, Any]
Reply = dict[str, Any]
"""As the scripted model takes it: ``ends``, and ``pieces`` of ``text`` and ``after_seconds``."""

FRAGMENT = 40
"""Characters of a delta, about what the real service sends."""
FILES = {
    f"src/part_{part}.py": "".join(f"value_{part}_{line} = 'what line {line} is worth'\n" for line in range(100))
    for part in range(50)
}
"""A small worktree: 50 files of 4 KB."""
_SAYING = "I look at what the next part does before I go on, since it may hold what the others need of it. " * 6
_SOON_SECONDS = 0.01
_WITHOUT_USAGE = {"input_tokens": 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}


def call(turn: int, name: str, /, number: int = 0, **arguments: Any) -> Block:
    return {"type": "tool_use", "id": f"toolu_{turn}_{number}", "name": name, "input": arguments}


def saying(text: str = _SAYING) -> Block:
    return {"type": "text", "text": text}


def at_once(*blocks: Block) -> Reply:
    """A whole reply without a pause; it stops for its tools if it calls any."""
    return {"ends": True, "pieces": [_piece("".join([*_opening(), *_body(blocks), *_ending(blocks)]))]}


def held(text: str = _SAYING) -> Reply:
    """A reply that goes on for ever without another word."""
    return {"ends": False, "pieces": [_piece("".join([*_opening(), *_body([saying(text)])][:-1]))]}


def in_two(first_delta: str, *blocks: Block, pause_seconds: float) -> Reply:
    """After a pause its beginning, whose one delta is ``first_delta`` (40 characters at most); then soon the rest."""
    begun, *rest = [*_opening(), *_body([saying(first_delta), *blocks])], *_ending(blocks)
    first = _deltas_begin(begun) + 1
    pieces = [_piece("".join(begun[:first]), pause_seconds), _piece("".join([*begun[first:], *rest]), _SOON_SECONDS)]
    return {"ends": True, "pieces": pieces}


def reading(turns: int) -> list[Reply]:
    """``turns`` that each use a reading tool, one after the other of the three."""
    return [at_once(saying(), reading_call(turn)) for turn in range(turns)]


def reading_call(turn: int) -> Block:
    part = turn % len(FILES)
    match turn % 3:
        case 0:
            return call(turn, "read_file", path=f"src/part_{part}.py", start_line=1 + turn // len(FILES))
        case 1:
            return call(turn, "search_code", pattern=f"value_{part}_1\\d =")
        case _:
            return call(turn, "list_files", directory="src", limit=20 + turn % 7)


def writing(turns: int) -> list[Reply]:
    """One that reads ``turns`` files, and then ``turns`` that each change one of them."""
    reads = [call(0, "read_file", number, path=f"src/part_{number}.py") for number in range(turns)]
    changes = [
        at_once(
            saying(),
            call(
                turn + 1,
                "edit_file",
                path=f"src/part_{turn}.py",
                old_string=f"value_{turn}_7 = 'what line 7 is worth'",
                new_string=f"value_{turn}_7 = 'what line {turn} was worth'",
            ),
        )
        for turn in range(turns)
    ]
    return [at_once(saying(), *reads), *changes]


def done(turn: int) -> Reply:
    return at_once(call(turn, "task_complete", summary="Nothing to do.", status="done"))


def _piece(text: str, after_seconds: float = 0) -> dict[str, Any]:
    return {"text": text, "after_seconds": after_seconds}


def _deltas_begin(events: Sequence[str]) -> int:
    return next(place for place, event in enumerate(events) if event.startswith("event: content_block_delta"))


def _opening() -> Iterator[str]:
    message = {"id": "msg_bench", "type": "message", "role": "assistant", "model": "bench", "content": []}
    unended = {"stop_reason": None, "stop_sequence": None, "usage": {**_WITHOUT_USAGE, "output_tokens": 1}}
    yield _event("message_start", message={**message, **unended})


def _body(blocks: Sequence[Block]) -> Iterator[str]:
    for index, block in enumerate(blocks):
        is_text = block["type"] == "text"
        opened = {**block, "text": ""} if is_text else {**block, "input": {}}
        kind, field = ("text_delta", "text") if is_text else ("input_json_delta", "partial_json")
        text = block["text"] if is_text else json.dumps(block["input"])
        yield _event("content_block_start", index=index, content_block=opened)
        for begin in range(0, len(text), FRAGMENT):
            delta = {"type": kind, field: text[begin : begin + FRAGMENT]}
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)


def _ending(blocks: Sequence[Block]) -> Iterator[str]:
    reason = "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn"
    delta = {"stop_reason": reason, "stop_sequence": None}
    yield _event("message_delta", delta=delta, usage={**_WITHOUT_USAGE, "output_tokens": 10})
    yield _event("message_stop")


def _event(name: str, **data: Any) -> str:
    return f"event: {name}\ndata: {orjson.dumps({'type': name, **data}).decode()}\n\n"
