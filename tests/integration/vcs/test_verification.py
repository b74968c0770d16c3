"""The delivery gate with a real worktree and a real sandbox: tests run on the model's work and leave nothing in it."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from services.agent.sandbox import Sandbox
from services.agent.verification import Verdict, Verifier
from services.agent.verification.detection import detect
from services.jobs.models import Hold
from tests.integration.vcs.conftest import METADATA, Node, Remote, content

HOLD = Hold(uuid4(), uuid4(), 1, uuid4())
LEAVES_TRACES = "echo left > left; mkdir out; echo x > out/log; echo broken > src/main.py; rm README.md"
MAKEFILE = f"test:\n\t{LEAVES_TRACES}; cat answer && grep -qx 42 answer\n"


@dataclass(frozen=True)
class LocalVcs:
    """As the client of a vcs, without the way there."""

    node: Node

    async def checkpoint(self, hold: Hold) -> bytes:
        return (await self.node.worktrees.checkpoint(str(hold.run_id), hold.attempt)).patch

    async def restore(self, hold: Hold, patch: bytes) -> None:
        await self.node.worktrees.restore(str(hold.run_id), hold.attempt, patch)


@pytest.fixture
async def sandbox() -> Sandbox:
    found = await Sandbox.find("auto")
    if found.kind == "unavailable":
        pytest.skip(found.words)
    return found


@pytest.fixture
async def worktree(node: Node, remote: Remote) -> Path:
    remote.commit({"Makefile": MAKEFILE, ".gitignore": "out/\n"})
    path = (await node.worktrees.prepare(str(HOLD.run_id), 1, remote.repository)).path
    (path / "answer").write_text("41\n")
    return path


async def check(node: Node, sandbox: Sandbox, worktree: Path, command: str, seconds: float = 60) -> Verdict:
    timeout = timedelta(seconds=seconds)
    verifier = Verifier(sandbox, LocalVcs(node), HOLD, worktree, command=command, timeout=timeout, network=False)
    return await verifier.check(0)


async def test_failing_tests_are_told_and_then_pass_on_the_same_work(
    node: Node, sandbox: Sandbox, worktree: Path
) -> None:
    command = detect(worktree)
    assert command == "make test"
    before = content(worktree)
    for answer, passed in (("41\n", False), ("42\n", True)):
        (worktree / "answer").write_text(answer)
        before["answer"] = (0, answer.encode())
        verdict = await check(node, sandbox, worktree, command)
        assert (verdict.passed, verdict.timed_out) == (passed, False)
        assert answer in verdict.output
        after = content(worktree)
        assert after.pop("out/log") == (0, b"x\n"), "what is ignored stays"
        assert after == before
    committed = await node.commits.commit_worktree(str(HOLD.run_id), 1, METADATA)
    assert [file.path for file in committed.files] == [b"answer"]


@pytest.mark.parametrize(
    ("command", "seconds", "ending"),
    [
        ("no-such-program --x", 60, "there is no such command in the sandbox (exit code 127)"),
        ("./answer", 60, "it cannot be executed (exit code 126)"),
        ("echo begun; sleep 600", 1, "its time limit"),
        ("exit 3", 60, "ended with exit code 3"),
    ],
)
async def test_what_cannot_be_run_to_its_end_is_a_failing_verdict(
    node: Node, sandbox: Sandbox, worktree: Path, command: str, seconds: float, ending: str
) -> None:
    verdict = await check(node, sandbox, worktree, command, seconds)
    assert not verdict.passed
    assert verdict.ending.endswith(ending)
    assert verdict.has_run


async def test_without_a_sandbox_nothing_is_run(node: Node, worktree: Path) -> None:
    verdict = await check(node, Sandbox("unavailable", "unavailable here", None), worktree, "touch ran")
    assert (verdict.passed, verdict.has_run) == (False, False)
    assert "unavailable here" in verdict.output
    assert not (worktree / "ran").exists()
