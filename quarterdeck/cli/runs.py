"""The commands about what a run did: its diff, transcript and logs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.syntax import Syntax

from quarterdeck.cli.console import console, local_time, print_json, print_text, text
from quarterdeck.cli.ids import run_id, run_ids
from quarterdeck.cli.options import AsJson, DataDir, RunArgument, connected
from quarterdeck.errors import NotFoundError, QuarterdeckError
from services.contracts.rest import Logs, Transcript, TranscriptMessage
from services.contracts.text import shown

RESULT_LINES = 12
LEVEL_STYLES = {"error": "red", "warning": "yellow", "debug": "dim"}


class NoDiffError(QuarterdeckError):
    """Nothing was changed, or not yet."""


def diff(
    identifier: Annotated[str, typer.Argument(metavar="RUN_OR_JOB", help="The id of a run or of a job.")],
    *,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Print the diff of a run, or those of all runs of a job."""
    diffs = asyncio.run(_diffs(identifier, data_dir=data_dir))
    if as_json:
        print_json([{"runId": str(run), "diff": patch} for run, patch in diffs.items()])
        return
    patches = [patch for patch in diffs.values() if patch is not None]
    if not patches:
        raise NoDiffError(f"{identifier} has no diff: its runs are not that far, or changed nothing.")
    for patch in patches:
        print_diff(patch)


async def _diffs(identifier: str, *, data_dir: DataDir) -> dict[UUID, str | None]:
    found: dict[UUID, str | None] = {}
    async with connected(data_dir) as client:
        for run in await run_ids(client, identifier):
            try:
                found[run] = await client.diff(run)
            except NotFoundError:
                found[run] = None
    return found


def print_diff(patch: str, *, most_lines: int | None = None) -> None:
    """In colour on a terminal, unchanged for programs; of more than ``most_lines`` it says how many are left out."""
    lines = patch.splitlines(keepends=True)
    kept = "".join(lines[:most_lines])
    out = console()
    if out.is_terminal:
        out.print(Syntax(shown(kept), "diff", background_color="default", word_wrap=True))
    else:
        typer.echo(kept, nl=False)
    if most_lines is not None and len(lines) > most_lines:
        out.print(text(f"… {len(lines) - most_lines} more lines", "dim"))


def transcript(run: RunArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Print what the model and its tools said."""

    async def fetch() -> Transcript:
        async with connected(data_dir) as client:
            return await client.transcript(await run_id(client, run))

    found = asyncio.run(fetch())
    if as_json:
        print_json(found)
        return
    for message in found.messages:
        _print_message(message)


def _print_message(message: TranscriptMessage) -> None:
    console().print(text(f"── {message.role} · {message.number}", "bold"))
    blocks = message.content if isinstance(message.content, list) else [{"type": "text", "text": message.content}]
    for block in blocks:
        for line in block_lines(block):
            print_text(line)


def block_lines(block: dict[str, Any]) -> Iterator[str]:
    """A content block of the Messages API as lines for people; long tool results are shortened."""
    match block.get("type"):
        case "text":
            yield str(block.get("text", ""))
        case "thinking":
            yield f"(thinking) {block.get('thinking', '')}"
        case "tool_use":
            yield f"→ {block.get('name')} {json.dumps(block.get('input'), ensure_ascii=False)}"
        case "tool_result":
            yield from _result_lines(block)
        case other:
            yield f"({other})"


def _result_lines(block: dict[str, Any]) -> Iterator[str]:
    content = block.get("content", "")
    parts = [str(part.get("text", "")) for part in content] if isinstance(content, list) else [str(content)]
    lines = "\n".join(parts).splitlines()
    mark = "✗" if block.get("is_error") else "←"
    yield from (f"{mark} {line}" for line in lines[:RESULT_LINES])
    if len(lines) > RESULT_LINES:
        yield f"{mark} … {len(lines) - RESULT_LINES} more lines"


def logs(run: RunArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Print the run's log."""

    async def fetch() -> Logs:
        async with connected(data_dir) as client:
            return await client.logs(await run_id(client, run))

    found = asyncio.run(fetch())
    if as_json:
        print_json(found)
        return
    out = console()
    for line in found.lines:
        out.print(text(f"{local_time(line.time)} {line.level:<7} {line.message}", LEVEL_STYLES.get(line.level, "")))
