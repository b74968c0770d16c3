"""`quarterdeck export cody-batch`: rows of the document's two tables, from a running gateway."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.cli.export import Format, export
from quarterdeck.errors import NotFoundError, QuarterdeckError
from quarterdeck.transport import Transport
from services.contracts.words import ExitReason
from tests.contract.cody_batch import document
from tests.contract.cody_batch.conftest import Cody
from tests.contract.cody_batch.test_document import PULL_REQUEST, patch_of, settled, work_of
from tests.integration.gateway.conftest import KEY

COMMAND_SECONDS = 60


def rows_of(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    return list(json.loads(text)) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def gateway_of(cody: Cody) -> str:
    return str(cody.api.native.base_url).rstrip("/")


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Transport]:
    transport = Transport(address, KEY, timedelta(seconds=10))
    try:
        yield transport
    finally:
        await transport.close()


@pytest.fixture
async def job_id(cody: Cody) -> str:
    """Of a job like the one that the document's tables show: its first repository is done, its second under way."""
    printed = document.answer("repository_item")
    made = await cody.create(repositories=document.CREATE["repositories"])
    first, _ = await cody.runs.claim(made)
    await cody.runs.work(first, work_of(printed["claudeConversation"]))
    await cody.runs.publish(first, patch_of(printed["changes"]), PULL_REQUEST)
    return made


async def test_rows_are_as_the_tables_have_them(cody: Cody, job_id: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "quarterdeck", "export", "cody-batch", "--out", str(tmp_path)),
        env={"PATH": os.environ["PATH"], "QUARTERDECK_ADDRESS": gateway_of(cody), "QUARTERDECK_API_KEY": KEY},
        stdout=PIPE,
        stderr=PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
    assert process.returncode == 0, said.decode()
    jobs, repositories = (rows_of(tmp_path / f"{name}.jsonl") for name in ("jobs", "repositories"))
    assert f"{len(jobs)} job(s) and {len(repositories)} repository row(s)" in said.decode()
    assert files_in(tmp_path) == ["jobs.jsonl", "repositories.jsonl"]

    (job,) = [row for row in jobs if row["jobId"] == job_id]
    assert json.dumps(settled(job, job_id)) == json.dumps(settled(document.answer("job_item")))
    first, second = [row for row in repositories if row["jobId"] == job_id]
    printed = settled(document.answer("repository_item"))
    assert list(first) == list(printed)
    shown = settled(first, job_id)
    assert {name for name in printed if shown[name] != printed[name]} == {"diff", "logs"}
    assert first["diff"] == patch_of(document.answer("repository_item")["changes"]).decode()
    assert [list(line) for line in first["logs"]] == [["timestamp", "level", "message"]] * len(first["logs"])
    assert (second["status"], "wereChangesNecessary" in second, second["changes"]) == ("processing", False, [])


async def test_every_job_is_written_once_in_either_format(cody: Cody, job_id: str, tmp_path: Path) -> None:
    total = (await cody.get("/jobs"))["pagination"]["total"]
    for file_format in Format:
        async with connected(gateway_of(cody)) as transport:
            jobs, _ = await export(transport, tmp_path, file_format)
        found = [row["jobId"] for row in rows_of(tmp_path / f"jobs.{file_format}")]
        assert (jobs, len(set(found))) == (total, total)
        assert job_id in found
        assert {row["status"] for row in rows_of(tmp_path / f"jobs.{file_format}")} <= {
            *("pending", "processing", "completed", "failed", "cancelled")
        }


async def test_a_failure_has_its_words(cody: Cody, tmp_path: Path) -> None:
    failed = await cody.create()
    (run,) = await cody.runs.claim(failed)
    await cody.runs.domain.running.fail(run.hold, ExitReason.CLONE_FAILED, error="no such repository")
    async with connected(gateway_of(cody)) as transport:
        await export(transport, tmp_path, Format.JSON)
    (job,) = [row for row in rows_of(tmp_path / "jobs.json") if row["jobId"] == failed]
    (repository,) = [row for row in rows_of(tmp_path / "repositories.json") if row["jobId"] == failed]
    assert (job["status"], job["error"]) == ("failed", "no such repository")
    assert (repository["status"], repository["error"]) == ("failed", "no such repository")


async def test_after_an_error_the_files_are_as_they_were(cody: Cody, tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text("what was there\n")
    (tmp_path / "file").touch()
    async with connected(f"{gateway_of(cody)}/nowhere") as transport:
        with pytest.raises(NotFoundError):
            await export(transport, tmp_path, Format.JSONL)
        with pytest.raises(QuarterdeckError, match="cannot be written"):
            await export(transport, tmp_path / "file", Format.JSONL)
    assert files_in(tmp_path) == ["file", "jobs.jsonl"]
    assert (tmp_path / "jobs.jsonl").read_text() == "what was there\n"
