"""What the model says in a conversation of ten turns, and in one of five whose tests fail twice, and the repository
that they are about. It answers by the transcript that it is sent alone: the same request gets the same answer, whoever
sends it and however often.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from quarterdeck.demo.git import commit_all
from tests.integration.agent.messages_server import Json, MessagesServer, call, event, said

MODEL: Final = "claude-sonnet-5-5"
INTERRUPTED: Final = b'"content":"Interrupted: '
COMMAND_TURN: Final = 8
TURNS: Final = 10
AGAIN: Final = b"toolu_again_8"
_FIRST_TIME: Final = b"toolu_8"
_DELTA_CHARACTERS: Final = 20_000
_TAG: Final = re.compile(rb"(story|gated)-\d{4}")
_SECONDS: Final = re.compile(rb"after \d+\.\d s")

ODD_TEXT: Final = "\ufeffone\r\ntwo\u2028still two\x0c\x85\r\nemoji \U0001f6a2, combining e\u0301, no line end"
LARGE_TEXT: Final = "".join(f"row {number:06}: nothing to be seen here\n" for number in range(8_000))
LARGE_BINARY: Final = bytes(range(256)) * 4_500
"""Over 1 MB."""
COMMAND: Final = (
    "echo run >> '{effects}'; chmod +x src/app.py; chmod -x tool.sh; ln -sfn src/app.py to-app; "
    r"printf '\000\001\377\n\r' > made.bin; mv large.bin kept.bin 2>/dev/null; echo done"
)
"""Leaves the same files when it is run again; outside of the worktree it leaves one more line."""


def make_origin(folder: Path) -> Path:
    """A bare repository with binary files, modes, symbolic links and a file over 1 MB."""
    files = folder / "story"
    for name, content in {
        "src/app.py": b"colour = 'red'\n\n\ndef paint():\n    return colour\n",
        "docs/guide.md": b"# Guide\n\nUse colour with care.\n",
        "old.txt": b"Not wanted any more.\n",
        "tool.sh": b"#!/bin/sh\necho tool\n",
        "run.sh": b"#!/bin/sh\necho run\n",
        "image.bin": bytes(range(256)),
        "large.bin": LARGE_BINARY,
    }.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_bytes(content)
    for name in ("tool.sh", "run.sh"):
        (files / name).chmod(0o755)
    (files / "kept-link").symlink_to("docs/guide.md")
    (files / "old-link").symlink_to("nowhere at all")
    bare = folder / "story.git"
    commit_all(files, bare, "Begin")
    return bare


TREE: Final = {
    "bin/run.sh": "100755",
    "docs/manual.md": "100644",
    "kept-link": "120000",
    "kept.bin": "100644",
    "made.bin": "100644",
    "media/image.bin": "100644",
    "odd.txt": "100644",
    "src/app.py": "100755",
    "table.txt": "100644",
    "to-app": "120000",
    "tool.sh": "100644",
}
"""What the ten turns come to: paths and modes."""


@dataclass(frozen=True)
class Story:
    """``name``: what the tags of its runs begin with. ``messages``: how many its transcript has in the end."""

    name: str
    turns: int
    messages: int
    options: dict[str, Any]


WHOLE: Final = Story("story", TURNS, 2 * TURNS, {"permissionMode": "bypassPermissions", "publish": "none"})
GATE: Final = "echo waste >> docs/guide.md; touch left.txt; grep -n colour src/app.py; grep -q green src/app.py"
GATED: Final = Story("gated", 5, 11, {"publish": "none", "testCommand": GATE, "maxFixAttempts": 2})


@dataclass(frozen=True)
class Step:
    blocks: tuple[Json, ...]
    stop: str = "tool_use"


@cache
def steps(effects: Path) -> tuple[Step, ...]:
    """The ten replies. ``effects``: where the command leaves a trace that no worktree takes back."""
    numbers = iter(range(1, TURNS + 1))

    def step(*calls: tuple[str, Json]) -> Step:
        number = next(numbers)
        made = [
            {**call(0, name, **given), "id": f"toolu_{number}_{place}"} for place, (name, given) in enumerate(calls)
        ]
        return Step((said(f"Turn {number}."), *made))

    def cut_off() -> Step:
        number = next(numbers)
        cut = {**call(0, "write_file", path="half.txt", content="the first ha"), "id": f"toolu_{number}_0"}
        return Step((said("A long explanation begins"), cut), "max_tokens")

    return (
        step(
            ("read_file", {"path": "src/app.py"}),
            ("read_file", {"path": "docs/guide.md"}),
            ("list_files", {"directory": "."}),
            ("search_code", {"pattern": "colour"}),
        ),
        step(("write_file", {"path": "odd.txt", "content": ODD_TEXT}), ("read_file", {"path": "odd.txt"})),
        step(
            ("edit_file", {"path": "src/app.py", "old_string": "colour", "new_string": "color", "replace_all": True}),
            ("edit_file", {"path": "odd.txt", "old_string": "two", "new_string": "three", "replace_all": True}),
        ),
        step(
            ("move_file", {"old_path": "image.bin", "new_path": "media/image.bin"}),
            ("move_file", {"old_path": "docs/guide.md", "new_path": "docs/manual.md"}),
            ("move_file", {"old_path": "run.sh", "new_path": "bin/run.sh"}),
        ),
        step(
            ("edit_file", {"path": "src/app.py", "old_string": "is not there", "new_string": "anything"}),
            ("delete_file", {"path": "old.txt"}),
            ("delete_file", {"path": "old-link"}),
        ),
        cut_off(),
        step(("write_file", {"path": "table.txt", "content": LARGE_TEXT})),
        step(("run_command", {"command": COMMAND.format(effects=effects)})),
        # It read this file eight turns ago, under another name: that, too, has to be remembered.
        step(
            ("edit_file", {"path": "docs/manual.md", "old_string": "colour", "new_string": "color"}),
            ("search_code", {"pattern": "colou?r"}),
        ),
        step(("task_complete", {"summary": "Told the whole story.", "status": "done"})),
    )


def gated_steps() -> tuple[Step, ...]:
    """Five replies, of which three call the work done beside what they do."""

    def step(number: int, *blocks: tuple[str, Json]) -> Step:
        made = [
            {**call(0, name, **given), "id": f"toolu_{number}_{place}"} for place, (name, given) in enumerate(blocks)
        ]
        return Step((said(f"Turn {number}."), *made))

    def edited(old: str, new: str) -> tuple[str, Json]:
        return "edit_file", {"path": "src/app.py", "old_string": old, "new_string": new}

    def done(summary: str) -> tuple[str, Json]:
        return "task_complete", {"summary": summary, "status": "done"}

    return (
        step(1, ("read_file", {"path": "src/app.py"}), ("list_files", {"directory": "."})),
        step(
            2,
            edited("red", "blue"),
            ("write_file", {"path": "notes.txt", "content": ODD_TEXT}),
            ("read_file", {"path": "notes.txt"}),
            done("Blue."),
        ),
        step(
            3,
            edited("blue", "yellow"),
            ("move_file", {"old_path": "image.bin", "new_path": "media/image.bin"}),
            done("Yellow."),
        ),
        step(4, ("read_file", {"path": "src/app.py"})),
        step(5, edited("yellow", "green"), ("delete_file", {"path": "old-link"}), done("Green.")),
    )


@dataclass(frozen=True)
class Asked:
    """One request: the key it came with, how many replies its transcript has, and a hash of all of its bytes."""

    life: str
    place: int
    digest: str


class Storyteller(MessagesServer):
    """Tells its stories to any number of runs at once; keeps what each has asked by the tag in its system prompt."""

    def __init__(self, effects: Path) -> None:
        super().__init__()
        self.asked: dict[str, list[Asked]] = defaultdict(list)
        stories = {WHOLE.name: steps(effects), GATED.name: gated_steps()}
        self._replies = {
            name: [_encoded(number, step) for number, step in enumerate(told, 1)] for name, told in stories.items()
        }

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        messages = orjson.loads(raw)["messages"]
        tag = _tag(raw)
        name, _, _ = tag.decode().partition("-")
        place = sum(message["role"] == "assistant" for message in messages)
        digest = hashlib.sha256(untimed(raw.replace(tag, b"story"))).hexdigest()
        self.asked[tag.decode()].append(Asked(_key(request), place, digest))
        times_interrupted = raw.count(INTERRUPTED)
        reply = self._replies[name][place - times_interrupted]
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for chunk in reply:
            await response.write(chunk.replace(_FIRST_TIME, AGAIN) if times_interrupted else chunk)
        return response


def told_again(body: bytes) -> bytes:
    """A message of the story as it is where the command was broken off before."""
    return body.replace(_FIRST_TIME, AGAIN)


def untimed(body: bytes) -> bytes:
    """Without how long the command took."""
    return _SECONDS.sub(b"after some s", body)


def _key(request: web.Request) -> str:
    return request.headers["authorization"].removeprefix("Bearer ")


def _tag(raw: bytes) -> bytes:
    found = _TAG.search(raw)
    assert found is not None, "every run of the story has a tag in its system prompt"
    return found[0]


def _encoded(number: int, step: Step) -> list[bytes]:
    usage = {"input_tokens": 100 * number, "output_tokens": 10 + number}
    message = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": MODEL, "content": []}
    return [
        event("message_start", message={**message, "usage": {**usage, "output_tokens": 1}}),
        *(chunk for index, block in enumerate(step.blocks) for chunk in _block(index, block)),
        event("message_delta", delta={"stop_reason": step.stop, "stop_sequence": None}, usage=usage),
        event("message_stop"),
    ]


def _block(index: int, block: Json) -> list[bytes]:
    is_text = block["type"] == "text"
    opened: dict[str, Any] = {**block, "text": ""} if is_text else {**block, "input": {}}
    whole = block["text"] if is_text else orjson.dumps(block["input"]).decode()
    kind, name = ("text_delta", "text") if is_text else ("input_json_delta", "partial_json")
    pieces = [whole[start : start + _DELTA_CHARACTERS] for start in range(0, len(whole), _DELTA_CHARACTERS)]
    deltas = [event("content_block_delta", index=index, delta={"type": kind, name: piece}) for piece in pieces]
    return [
        event("content_block_start", index=index, content_block=opened),
        *deltas,
        event("content_block_stop", index=index),
    ]
