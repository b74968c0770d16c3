"""The gate around a test run: what is run, what is put back, and what everybody is told."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from services.agent import verification
from services.agent.sandbox import Ended, Limits, SandboxUnavailableError
from services.agent.verification import TESTS_FAILED_MARK, Verdict, Verifier, prompt_of
from services.contracts.v1 import events_pb2
from services.contracts.words import EventKind
from services.jobs.models import Hold

HOLD = Hold(uuid4(), uuid4(), 1, uuid4())
WORKTREE = Path("/worktree")


@dataclass
class Around:
    """A sandbox and a vcs at once, which note what they are asked, in order."""

    ended: Ended | SandboxUnavailableError
    asked: list[object] = field(default_factory=list)

    async def run(self, argv: list[str], *, worktree: Path | None, limits: Limits, network: bool) -> Ended:
        self.asked.append((argv, worktree, limits.wall, limits.cpu, network))
        if isinstance(self.ended, SandboxUnavailableError):
            raise self.ended
        return self.ended

    async def checkpoint(self, hold: Hold) -> bytes:
        self.asked.append(("checkpoint", hold))
        return b"the patch"

    async def restore(self, hold: Hold, patch: bytes) -> None:
        self.asked.append(("restore", hold, patch))


def ended(exit_code: int = 0, output: str = "", *, timed_out: bool = False) -> Ended:
    return Ended(exit_code, timed_out, output, None, timedelta(seconds=61))


def verifier(around: Around, **options: object) -> Verifier:
    chosen = {"command": "make test", "timeout": timedelta(minutes=20), "network": False, **options}
    return Verifier(around, around, HOLD, WORKTREE, **chosen)  # type: ignore[arg-type]


async def check(what: Ended | SandboxUnavailableError) -> Verdict:
    return await verifier(Around(what)).check(0)


@pytest.mark.parametrize("what", [ended(), ended(1), ended(137, timed_out=True), SandboxUnavailableError("no")])
async def test_the_work_is_kept_before_the_tests_and_put_back_after_them(what: Ended | SandboxUnavailableError):
    around = Around(what)
    await verifier(around, network=True).check(1)
    limit = timedelta(minutes=20)
    assert around.asked == [
        ("checkpoint", HOLD),
        (["/bin/sh", "-c", "make test"], WORKTREE, limit, limit, True),
        ("restore", HOLD, b"the patch"),
    ]


@pytest.mark.parametrize(
    ("what", "passed", "ending"),
    [
        (ended(0), True, "ended with exit code 0"),
        (ended(1), False, "ended with exit code 1"),
        (ended(139), False, "ended with exit code 139"),
        (ended(143, timed_out=True), False, "was stopped after 61 s, its time limit"),
        (ended(0, timed_out=True), False, "was stopped after 61 s, its time limit"),
        (
            ended(127),
            False,
            "could not be started: there is no such command in the sandbox (exit code 127)",
        ),
        (ended(126), False, "could not be started: it cannot be executed (exit code 126)"),
        (SandboxUnavailableError("no bwrap"), False, "could not be started: there is no sandbox for it"),
    ],
)
async def test_a_verdict_says_how_it_ended(what: Ended | SandboxUnavailableError, passed: bool, ending: str):
    verdict = await check(what)
    assert (verdict.passed, verdict.ending, verdict.command) == (passed, ending, "make test")


async def test_without_a_sandbox_the_words_say_why():
    verdict = await check(SandboxUnavailableError("commands are refused; set SANDBOX=none"))
    assert not verdict.has_run
    assert verdict.output == "The tests could not be run: commands are refused; set SANDBOX=none"
    assert (await check(ended(1))).has_run


async def test_the_end_of_the_output_is_kept_and_can_be_stored():
    verdict = await check(ended(1, "first" + "x" * 5_000 + "\0\ud800last"))
    assert len(verdict.output) == 4_000
    assert verdict.output.endswith("x\N{SYMBOL FOR NULL}\N{REPLACEMENT CHARACTER}last")
    assert "first" not in verdict.output


async def test_the_model_is_told_in_a_message_that_can_be_counted():
    verdict = await verifier(Around(ended(2, "E  {0} % \\ assert\n")), command="make 'a{b}'").check(0)
    told = prompt_of(verdict)
    first, *_ = told.splitlines()
    assert first == TESTS_FAILED_MARK
    assert "`make 'a{b}'` was run in your worktree and ended with exit code 2" in told
    assert told.endswith("E  {0} % \\ assert")
    assert prompt_of(await check(ended(1, " \n"))).endswith("(it printed nothing)")


async def test_the_event_log_is_told_in_its_own_terms():
    started = verification.tests_started("make\0test", 2)
    assert (started.kind, started.data) == (
        EventKind.TESTS_STARTED,
        {"command": "make\N{SYMBOL FOR NULL}test", "fixAttempt": 2},
    )
    over = verification.tests_ended(await check(ended(3, "bad")))
    assert (over.kind, over.data) == (
        EventKind.TESTS_ENDED,
        {"passed": False, "exitCode": 3, "timedOut": False, "durationMs": 61_000, "output": "bad"},
    )
    for draft, message in ((started, events_pb2.TestsStarted), (over, events_pb2.TestsEnded)):
        assert set(draft.data) == {each.json_name for each in message.DESCRIPTOR.fields}
