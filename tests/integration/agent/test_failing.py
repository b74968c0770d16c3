"""Which failed attempts are followed by another, after how long, and until when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services.agent.vcs_client import Progress, VcsClient, VcsFailedError, Worktree
from services.contracts.words import EventKind, ExitReason, RunState
from services.jobs.models import Checkpoint, ClaimedRun, Hold, Standing
from services.jobs.running import Running
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import VCS_TOKEN, Fleet
from tests.integration.agent.messages_server import Answer, call, hanging, refused, said, whole

NOT_BY_AN_ATTEMPT = {
    ExitReason.QUEUE_TIMED_OUT: "the sweep",
    ExitReason.LOST: "the sweep",
    ExitReason.PUSH_REJECTED: "a publication",
    ExitReason.FORGE_REJECTED: "a publication",
    ExitReason.BUDGET_EXHAUSTED: "nobody counts money yet",
}
LONGEST_BACK_OFF_SECONDS = 300


class FailingVcs(VcsClient):
    """Prepares nothing."""

    def __init__(self, fleet: Fleet, error: VcsFailedError) -> None:
        super().__init__(fleet.vcs_address, VCS_TOKEN)
        self._error = error

    async def prepare(self, run: ClaimedRun, *, progress: Progress | None = None) -> Worktree:
        raise self._error


class BrokenRunning(Running):
    """Has a bug in its checkpoints, whose error looks like the deadline's."""

    async def checkpoint(self, hold: Hold, checkpoint: Checkpoint) -> Standing:
        raise TimeoutError("not the attempt's own")


def failing_vcs(reason: ExitReason, *, retryable: bool) -> Callable[[Fleet], dict[str, Any]]:
    return lambda fleet: {"vcs": FailingVcs(fleet, VcsFailedError(reason, "It said so.", retryable=retryable))}


@dataclass(frozen=True)
class Failure:
    """``answer``: what the model says every time. ``agent``: what of the agent is replaced."""

    name: str
    reason: ExitReason
    words: str
    """Part of the error that the run ends with."""
    is_retried: bool
    answer: Answer = field(default_factory=lambda: whole(call(1, "read_file", path="f.txt")))
    agent: Callable[[Fleet], dict[str, Any]] = lambda _: {}
    options: dict[str, Any] = field(default_factory=dict)


FAILURES = [
    Failure("refused", ExitReason.MODEL_REFUSED, "No.", is_retried=False, answer=whole(said("No."), stop="refusal")),
    Failure(
        "a wrong request",
        ExitReason.MODEL_REJECTED,
        "the model service answered 400: max_tokens: larger than the model allows",
        is_retried=False,
        answer=refused(400, "max_tokens: larger than the model allows"),
    ),
    Failure(
        "an overloaded service",
        ExitReason.MODEL_UNAVAILABLE,
        "529: Overloaded (tried 2 times)",
        is_retried=True,
        answer=refused(529, "Overloaded", kind="overloaded_error"),
    ),
    Failure(
        "too many turns",
        ExitReason.MAX_TURNS,
        "not finished after 2 turns",
        is_retried=False,
        options={"maxTurns": 2},
    ),
    Failure(
        "out of time",
        ExitReason.TIMED_OUT,
        "not finished within 1 s",
        is_retried=False,
        answer=hanging(),
        options={"deadlineSeconds": 1},
    ),
    Failure(
        "cut off again and again",
        ExitReason.STUCK,
        "cut off at max_tokens 3 times",
        is_retried=False,
        answer=whole(said("It is a long"), stop="max_tokens"),
    ),
    Failure(
        "too long a conversation",
        ExitReason.CONTEXT_EXHAUSTED,
        "no longer fits",
        is_retried=False,
        answer=whole(said("It is"), stop="model_context_window_exceeded"),
    ),
    Failure(
        "blocked",
        ExitReason.BLOCKED,
        "No tests here.",
        is_retried=False,
        answer=whole(call(1, "task_complete", summary="No tests here.", status="blocked")),
    ),
    Failure(
        "a remote that is away",
        ExitReason.CLONE_FAILED,
        "It said so.",
        is_retried=True,
        agent=failing_vcs(ExitReason.CLONE_FAILED, retryable=True),
    ),
    Failure(
        "a remote that refuses",
        ExitReason.CLONE_FAILED,
        "It said so.",
        is_retried=False,
        agent=failing_vcs(ExitReason.CLONE_FAILED, retryable=False),
    ),
    Failure(
        "a patch too large",
        ExitReason.INTERNAL,
        "It said so.",
        is_retried=False,
        agent=failing_vcs(ExitReason.INTERNAL, retryable=False),
    ),
    Failure(
        "a busy mirror",
        ExitReason.INTERNAL,
        "It said so.",
        is_retried=True,
        agent=failing_vcs(ExitReason.INTERNAL, retryable=True),
    ),
    Failure(
        "a bug",
        ExitReason.INTERNAL,
        "TimeoutError: not the attempt's own",
        is_retried=True,
        agent=lambda fleet: {"running": BrokenRunning(fleet.domain.units)},
    ),
]


def test_every_exit_reason_has_a_row_or_is_somebody_else_s():
    assert {failure.reason for failure in FAILURES} == set(ExitReason) - NOT_BY_AN_ATTEMPT.keys()


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
async def test_whether_another_attempt_follows(fleet: Fleet, start_agent: StartAgent, failure: Failure):
    await start_agent(**failure.agent(fleet))
    fleet.model.ever_after = failure.answer
    run_id = await fleet.dispatch(maxAttempts=2, **failure.options)
    run = await fleet.until_run(run_id, RunState.QUEUED, RunState.FAILED)
    assert (run["state"], run["attempts_spent"]) == ("queued" if failure.is_retried else "failed", 1)
    if failure.is_retried:
        assert failure.words in run["error"]
        assert run["exit_reason"] is None
        assert 2.5 <= await waited_seconds(fleet, run_id) <= 5
        await fleet.again(run_id)
        run = await fleet.until_run(run_id, RunState.FAILED)
        assert (run["attempts_spent"], run["attempt"]) == (2, 2)
    assert run["exit_reason"] == failure.reason
    assert failure.words in run["error"]
    assert (await fleet.kinds(run_id))[-2:] == ["run.finished", "job.finished"]
    await fleet.until_released(run_id)
    assert await fleet.changesets(run_id) == []


async def test_the_wait_before_another_attempt_doubles_to_five_minutes(fleet: Fleet, start_agent: StartAgent):
    await start_agent(**failing_vcs(ExitReason.INTERNAL, retryable=True)(fleet))
    run_ids = [await with_attempts_spent(fleet, spent) for spent in range(9)]
    waited = []
    for run_id in run_ids:
        await fleet.until_run(run_id, RunState.QUEUED)
        waited.append(await waited_seconds(fleet, run_id))
    ceilings = [min(LONGEST_BACK_OFF_SECONDS, 5 * 2**spent) for spent in range(9)]
    assert all(top / 2 <= seconds <= top for seconds, top in zip(waited, ceilings, strict=True)), waited
    assert len(set(waited[-3:])) == 3, "those that wait as long do not come back together"


async def test_a_repository_that_is_not_there_fails_with_git_s_words(
    fleet: Fleet, start_agent: StartAgent, tmp_path: Path
):
    await start_agent()
    run = await fleet.until_run(await fleet.dispatch(repositories=[tmp_path / "none"]), RunState.FAILED)
    assert (run["exit_reason"], run["attempts_spent"]) == ("clone_failed", 1)
    assert "none" in run["error"]
    assert fleet.model.requests == []


async def with_attempts_spent(fleet: Fleet, spent: int) -> UUID:
    """A run whose first ``spent`` attempts failed, and whose next is ordered."""
    job_id = await fleet.submit(maxAttempts=10)
    await fleet.domain.execute("UPDATE runs SET attempt = $2, attempts_spent = $2 WHERE job_id = $1", job_id, spent)
    (order,) = await fleet.order(job_id)
    return order.run_id


async def waited_seconds(fleet: Fleet, run_id: UUID) -> float:
    """How long the run has to wait from when it was queued again."""
    statement = """
        SELECT extract(epoch FROM r.not_before - e.created_at)::float8 AS seconds
        FROM runs r JOIN events e ON e.run_id = r.id WHERE r.id = $1 AND e.kind = $2
    """
    (row,) = await fleet.domain.rows(statement, run_id, EventKind.RUN_REQUEUED.value)
    seconds: float = row["seconds"]
    return seconds
