"""What an attempt leaves behind: checkpoints stored once, and another attempt that goes on from them."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from services.contracts.words import EventKind, ExitReason, Outcome, Publish
from services.jobs.models import Checkpoint, ModelUse, SavedTree, StoredMessage, Usage
from services.jobs.unit import Draft
from tests.integration.jobs.domain import COMMIT, Domain
from tests.integration.waiting import until_async

EXACT = b'{"z": 1, "a":  2.0, "role":"user"}'
STEP = Checkpoint(
    messages=[StoredMessage(1, "user", EXACT), StoredMessage(2, "assistant", b"\xff\x00")],
    tree=SavedTree(b"the patch\0", {"a.txt": "hash"}),
    usage=ModelUse(Usage(10, 20, 30, 40), "a-model"),
    events=[Draft(EventKind.LOG, {"level": "info", "message": "one turn"})],
)


async def test_a_checkpoint_sent_twice_is_stored_once(domain: Domain) -> None:
    run = await domain.start()

    await domain.running.checkpoint(run.hold, STEP)
    await domain.running.checkpoint(run.hold, STEP)

    row = await domain.row("runs", run.hold.run_id)
    assert (row["turns"], row["input_tokens"], row["output_tokens"]) == (1, 10, 20)
    assert (row["cache_read_input_tokens"], row["cache_creation_input_tokens"]) == (30, 40)
    assert len(await domain.rows("SELECT FROM messages")) == 2
    assert (await domain.kinds(run.hold.job_id)).count("log") == 1


async def test_a_checkpoint_sent_twice_at_once_is_stored_once(domain: Domain) -> None:
    run = await domain.start()

    await asyncio.gather(*(domain.running.checkpoint(run.hold, STEP) for _ in range(4)))

    assert (await domain.row("runs", run.hold.run_id))["turns"] == 1
    assert (await domain.kinds(run.hold.job_id)).count("log") == 1


async def test_the_next_attempt_gets_the_exact_bytes_back(domain: Domain) -> None:
    run = await domain.start()
    await domain.running.checkpoint(run.hold, STEP)
    await domain.running.interrupted(run.hold)

    again = await domain.resume(run.hold.run_id)

    assert list(again.messages) == list(STEP.messages)
    assert again.tree == STEP.tree
    assert (again.turns, again.base_sha, again.branch) == (1, "b" * 40, run.branch)


async def test_a_tree_without_a_patch_keeps_the_patch_before(domain: Domain) -> None:
    run = await domain.start()
    await domain.running.checkpoint(run.hold, STEP)
    await domain.running.checkpoint(run.hold, Checkpoint(tree=SavedTree(None, {"b.txt": "other"})))
    await domain.running.interrupted(run.hold)

    assert (await domain.resume(run.hold.run_id)).tree == SavedTree(b"the patch\0", {"b.txt": "other"})


async def test_a_tree_that_was_too_large_is_behind_until_a_patch_is_stored(domain: Domain) -> None:
    run = await domain.start()
    found = []
    for tree in (
        SavedTree(b"a patch", {}),
        SavedTree(None, {"a": "1"}, is_behind=True),
        SavedTree(None, {"a": "2"}),
        SavedTree(b"another", {}),
    ):
        await domain.running.checkpoint(run.hold, Checkpoint(tree=tree))
        await domain.running.interrupted(run.hold)
        run = await domain.resume(run.hold.run_id)
        found.append(run.tree)
    assert found == [
        SavedTree(b"a patch", {}),
        SavedTree(b"a patch", {"a": "1"}, is_behind=True),
        SavedTree(b"a patch", {"a": "2"}, is_behind=True),
        SavedTree(b"another", {}),
    ]


async def test_the_base_is_fixed_at_the_first_prepare(domain: Domain) -> None:
    run = await domain.start()
    await domain.running.prepared(run.hold, base_sha="d" * 40, base_branch="moved", events=[])

    row = await domain.row("runs", run.hold.run_id)
    assert (row["base_sha"], row["base_branch"]) == ("b" * 40, "main")


async def test_an_interrupted_attempt_costs_nothing(domain: Domain) -> None:
    run = await domain.start()
    await domain.running.interrupted(run.hold)

    row = await domain.row("runs", run.hold.run_id)
    assert (row["state"], row["attempts_spent"], row["agent"], row["error"]) == ("queued", 0, None, None)
    again = await domain.resume(run.hold.run_id)
    assert (again.hold.attempt, again.attempts_spent) == (2, 0)
    assert (await domain.row("jobs", run.hold.job_id))["runs_started"] == 1


async def test_a_retried_attempt_is_spent_and_waits(domain: Domain) -> None:
    run = await domain.start()
    await domain.running.retry(run.hold, error="the model\0is away", delay=timedelta(minutes=1))

    row = await domain.row("runs", run.hold.run_id)
    assert (row["state"], row["attempts_spent"], row["error"]) == ("queued", 1, "the model\N{SYMBOL FOR NULL}is away")
    assert await domain.admit() == []
    await domain.execute("UPDATE runs SET not_before = now()")
    await domain.execute("UPDATE jobs SET ready_from = now()")
    assert await domain.admitting.ripen() == 1
    assert (await domain.resume(run.hold.run_id)).attempts_spent == 1


async def test_a_postponed_attempt_costs_nothing_and_waits(domain: Domain) -> None:
    run = await domain.start()
    await domain.running.postpone(run.hold, error="no vcs", delay=timedelta(minutes=1))

    assert (await domain.row("runs", run.hold.run_id))["attempts_spent"] == 0
    assert await domain.admit() == []


@pytest.mark.parametrize("outcome", Outcome)
async def test_completing_ends_run_and_job(domain: Domain, outcome: Outcome) -> None:
    run = await domain.start()
    await domain.running.complete(run.hold, outcome, summary="said\0so")

    row = await domain.row("runs", run.hold.run_id)
    job = await domain.row("jobs", run.hold.job_id)
    assert (row["state"], row["outcome"], row["summary"]) == ("completed", outcome.value, "said\N{SYMBOL FOR NULL}so")
    assert row["finished_at"] is not None
    assert (job["state"], job["outcome"], job["runs_active"], job["runs_completed"]) == ("completed", "all", 0, 1)
    assert await domain.rows("SELECT FROM leases") == []


async def test_a_completion_that_waited_for_its_job_goes_by_what_is_unread_then(domain: Domain) -> None:
    """It begins while something else holds the job, and has the user of one of the two runs say something."""
    job_id = await domain.submit("https://a/1", "https://a/2", kind="task")
    silent, spoken = [await domain.claimed(order) for order in await domain.admit()]
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    say = "INSERT INTO inbox (id, run_id, number, kind, body) VALUES (gen_random_uuid(), $1, 1, 'message', 'wait')"

    async def is_waiting() -> bool:
        return len(await domain.rows(waiting)) == 1

    async with domain.database.transaction() as other:
        await other.execute("SELECT FROM jobs WHERE id = $1 FOR NO KEY UPDATE", job_id)
        completing = [
            asyncio.create_task(domain.running.complete(run.hold, Outcome.ANSWERED, summary="done"))
            for run in (silent, spoken)
        ]
        await until_async(is_waiting)
        await other.execute(say, spoken.hold.run_id)
        await other.execute("UPDATE jobs SET last_event_number = last_event_number + 5 WHERE id = $1", job_id)
        before = await other.fetchval("SELECT last_event_number FROM jobs WHERE id = $1", job_id)

    assert await asyncio.gather(*completing) == [True, False]
    job = await domain.row("jobs", job_id)
    assert (job["state"], job["runs_active"], job["runs_completed"]) == ("running", 1, 1)
    told = [(event.number, event.run_id) for event in await domain.events(job_id) if event.number > before]
    assert told == [(before + 1, silent.hold.run_id)]


@pytest.mark.parametrize("reason", ExitReason)
async def test_failing_ends_run_and_job(domain: Domain, reason: ExitReason) -> None:
    run = await domain.start()
    await domain.running.fail(run.hold, reason, error="x" * 5_000)

    row = await domain.row("runs", run.hold.run_id)
    assert (row["state"], row["exit_reason"]) == ("failed", reason.value)
    assert len(row["error"]) == 4_000
    assert row["error"].endswith("x… [cut: 5,000 characters in all]")
    assert (await domain.row("jobs", run.hold.job_id))["state"] == "failed"


async def test_storing_a_changeset_completes_the_run(domain: Domain) -> None:
    run = await domain.start()
    changeset_id = await domain.running.deliver(run.hold, COMMIT, publish=Publish.NONE, summary="done")

    changeset = await domain.row("changesets", changeset_id)
    assert (changeset["state"], changeset["patch"], changeset["commit_sha"]) == ("stored", COMMIT.patch, COMMIT.sha)
    assert (changeset["base_sha"], changeset["branch"]) == ("b" * 40, run.branch)
    assert (await domain.row("runs", run.hold.run_id))["outcome"] == "stored"
    assert await domain.publishing.due(overdue=timedelta()) == []


async def test_a_path_that_postgres_refuses_is_stored_readably(domain: Domain) -> None:
    run = await domain.start()
    commit = replace(COMMIT, files=[{**COMMIT.files[0], "path": "a\ud800b"}])
    await domain.running.deliver(run.hold, commit, publish=Publish.NONE, summary="done")

    found = await domain.reading.run(domain.client, run.hold.run_id)
    assert found.changeset is not None
    assert [stat.path for stat in found.changeset.files] == ["a\N{REPLACEMENT CHARACTER}b"]
