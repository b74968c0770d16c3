"""The command `export cody-batch`: what the Cody Batch API shows, as rows of the two tables of its document."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TextIO
from urllib.parse import quote

import typer

from quarterdeck.address import resolve
from quarterdeck.cli.console import print_note
from quarterdeck.cli.options import PATIENCE, DataDir
from quarterdeck.errors import NotFoundError, ProtocolError, QuarterdeckError
from quarterdeck.transport import Transport

ROOT = "/cody-batch"
PAGE = 100
_STATUS_WORDS = {"in-progress": "processing"}
"""The tables' words for what the API says otherwise."""

_TABLES = ("jobs", "repositories")

Row = dict[str, Any]


class Format(StrEnum):
    JSONL = "jsonl"
    JSON = "json"


class UnwritableError(QuarterdeckError):
    """A file cannot be written; the words say which, and why."""


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Write what a published API shows into files.")
app.callback()(lambda: None)


@app.command("cody-batch")
def cody_batch(
    *,
    out: Annotated[Path, typer.Option(help="The folder for the files `jobs` and `repositories`.")] = Path(),
    file_format: Annotated[Format, typer.Option("--format", help="A row a line, or one array of them.")] = Format.JSONL,
    data_dir: DataDir = None,
) -> None:
    """Write the jobs of the Cody Batch API, as rows of its tables; files that are there are replaced at the end."""

    async def read() -> tuple[int, int]:
        endpoint = resolve(None, None, data_dir=data_dir)
        transport = Transport(endpoint.address, endpoint.api_key, PATIENCE)
        try:
            return await export(transport, out, file_format)
        finally:
            await transport.close()

    jobs, repositories = asyncio.run(read())
    print_note(f"{jobs} job(s) and {repositories} repository row(s) are in {out}")


async def export(transport: Transport, out: Path, file_format: Format) -> tuple[int, int]:
    """How many jobs and repositories were written. Raises ``QuarterdeckError``: then the files are as they were."""
    with ExitStack() as files:
        jobs, repositories = (files.enter_context(_replaced(out, name, file_format)) for name in _TABLES)
        async for job in _jobs(transport):
            jobs.add(job_row(job))
            for repository in job["repositories"]:
                repositories.add(await _repository(transport, job, repository["name"]))
    return jobs.rows, repositories.rows


def job_row(job: Mapping[str, Any]) -> Row:
    """Of the table of jobs. ``job``: as the API shows it in full."""
    names = ("jobId", "name", "description", "type", "prompt")
    times = ("createdAt", "startedAt", "completedAt")
    ended = [repository["completedAt"] for repository in job["repositories"]]
    row = {name: job[name] for name in names} | {
        "repositories": [repository["name"] for repository in job["repositories"]],
        "createPullRequests": job["createPullRequests"],
        "status": _word(job["status"]),
        **{name: job[name] for name in times},
        "updatedAt": _last(*(job[name] for name in times), *ended),
        "error": job.get("error"),
    }
    return _without_nulls(row)


def repository_row(job: Mapping[str, Any], found: Mapping[str, Any], diff: str | None) -> Row:
    """Of the table of repositories. ``found``: as the API shows it in full; ``diff``: None where there is none."""
    conversation = found["claudeConversation"]
    said = [message["timestamp"] for message in conversation["messages"]] if conversation else []
    logged = [line["timestamp"] for line in found["logs"]]
    row = {name: found[name] for name in ("jobId", "repositoryName")} | {
        "status": _word(found["status"]),
        **{name: found[name] for name in ("pullRequestUrl", "wereChangesNecessary", "startedAt", "completedAt")},
        "updatedAt": _last(job["createdAt"], found["startedAt"], found["completedAt"], *said, *logged),
        "changes": found["changes"],
        "diff": diff,
        "claudeConversation": conversation,
        "logs": found["logs"],
        "error": found.get("error"),
    }
    return _without_nulls(row)


def _word(status: str) -> str:
    return _STATUS_WORDS.get(status, status)


def _last(*times: str | None) -> str:
    """The latest of the times that are known; as they are written, they are in the order of their letters."""
    return max(time for time in times if time is not None)


def _without_nulls(row: Row) -> Row:
    """An attribute without a value is not there at all."""
    return {name: value for name, value in row.items() if value is not None}


async def _jobs(transport: Transport) -> AsyncIterator[Row]:
    """Each in full, newest first. What is created meanwhile moves the pages: a job that was seen is not told again."""
    seen: set[str] = set()
    page, pages = 1, 1
    while page <= pages:
        listed = await _json(transport, "/jobs", {"page": page, "perPage": PAGE})
        for job in listed["jobs"]:
            if job["jobId"] not in seen:
                seen.add(job["jobId"])
                yield await _json(transport, f"/jobs/{_segment(job['jobId'])}")
        page, pages = page + 1, listed["pagination"]["totalPages"]


async def _repository(transport: Transport, job: Row, name: str) -> Row:
    path = f"/jobs/{_segment(job['jobId'])}/repositories/{_segment(name)}"
    found = await _json(transport, path)
    diff = None
    if found["changes"]:
        try:
            diff = (await transport.get(f"{ROOT}{path}/diff")).content.decode(errors="replace")
        except NotFoundError:
            diff = None
    return repository_row(job, found, diff)


async def _json(transport: Transport, path: str, query: Mapping[str, int] | None = None) -> Row:
    response = await transport.get(f"{ROOT}{path}", query)
    try:
        found: Row = response.json()
    except ValueError as error:
        raise ProtocolError(f"{response.request.url} answered what is no JSON: is it a Quarterdeck gateway?") from error
    return found


def _segment(text: str) -> str:
    return quote(text, safe="")


class _Rows:
    """A file of rows, in one of the formats."""

    def __init__(self, file: TextIO, file_format: Format) -> None:
        self._file = file
        self._is_array = file_format is Format.JSON
        self.rows = 0

    def add(self, row: Row) -> None:
        """ASCII, so that whatever the text holds can be written."""
        before = ("[\n" if self.rows == 0 else ",\n") if self._is_array else ""
        after = "" if self._is_array else "\n"
        self._file.write(f"{before}{json.dumps(row)}{after}")
        self.rows += 1

    def end(self) -> None:
        if self._is_array:
            self._file.write("\n]\n" if self.rows else "[]\n")


@contextmanager
def _replaced(folder: Path, name: str, file_format: Format) -> Iterator[_Rows]:
    """Rows that take the place of the file once all were written; after an error it is as it was."""
    path = folder / f"{name}.{file_format}"
    part = path.with_name(f".{path.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("w", encoding="ascii") as file:
                rows = _Rows(file, file_format)
                yield rows
                rows.end()
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UnwritableError(f"{path} cannot be written: {error.strerror or error}") from error
