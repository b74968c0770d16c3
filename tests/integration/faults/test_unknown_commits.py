"""The answer to a COMMIT is lost, and the connection with it: what was asked for is done once, and not given up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from services.contracts.words import EventKind, ExitReason, Publish
from services.jobs.errors import LeaseLostError
from services.jobs.models import Checkpoint, ClaimedRun, ModelUse, StoredMessage, Usage, VoidUse
from services.jobs.scheduling import Dispatched
from services.jobs.unit import Draft
from services.runtime.postgres import Database
from tests.integration.faults.proxy import Link
from tests.integration.jobs.domain import COMMIT, Domain, job_request, tell_capacity
from tests.integration.jobs.sequences import SEQUENCED

REPOSITORY = "https://forge.example/a/{}.git"
LOG = Draft(EventKind.LOG, {"message": "told once"})


@dataclass(frozen=True)
class Case:
    """``act`` is what the fault meets, done by another domain than ``prepare``."""

    prepare: Callable[[Domain, str], Awaitable[Any]]
    act: Callable[[Domain, Any], Awaitable[Any]]
    commit: bytes | Callable[[Any], bytes] = b"COMMIT;"
    """What is sent when it is to be committed; it may hang on what was prepared."""


async def nothing(domain: Domain, repository: str) -> str:
    return repository


async def queued(domain: Domain, repository: str) -> Any:
    return await domain.submit(repository)


async def admissible(domain: Domain, repository: str) -> None:
    await domain.submit(repository)
    await tell_capacity(domain.database, 1)


async def started(domain: Domain, repository: str) -> ClaimedRun:
    return await domain.start(repository)


async def claimed(domain: Domain, repository: str) -> ClaimedRun:
    return await domain.claimed(await domain.dispatch_one(repository))


async def talked(domain: Domain, repository: str) -> ClaimedRun:
    return await domain.talk()


async def submit(domain: Domain, repository: str) -> None:
    await domain.submit(repository)


async def submit_with_key(domain: Domain, repository: str) -> None:
    submitted = await domain.submissions.submit(domain.client, job_request(repository), key=repository, body=b"x")
    assert not submitted.replayed, "it is this request that made the job"


async def checkpoint(domain: Domain, run: ClaimedRun) -> None:
    message = StoredMessage(1, "user", b"hello")
    await domain.running.checkpoint(run.hold, Checkpoint(messages=[message], events=[LOG]))


async def fail(domain: Domain, run: ClaimedRun) -> None:
    with suppress(LeaseLostError):  # it has been given up by itself
        await domain.running.fail(run.hold, ExitReason.STUCK, error="stuck")


async def count_void(domain: Domain, run: ClaimedRun) -> None:
    use = ModelUse(Usage(input_tokens=9), "told once", cost_microusd=7)
    await domain.running.count_void(run.hold, [VoidUse(use)])


async def complete(domain: Domain, run: ClaimedRun) -> None:
    with suppress(LeaseLostError):
        await domain.finish(run)


async def deliver(domain: Domain, run: ClaimedRun) -> None:
    with suppress(LeaseLostError):
        await domain.running.deliver(run.hold, COMMIT, publish=Publish.PULL_REQUEST, summary="done")


async def interrupt(domain: Domain, run: ClaimedRun) -> None:
    with suppress(LeaseLostError):
        await domain.running.interrupted(run.hold)


async def ordered(domain: Domain, repository: str) -> Dispatched:
    return await domain.dispatch_one(repository)


async def left_dispatched(domain: Domain, repository: str) -> None:
    """As a scheduler of the version before leaves a run."""
    order = await domain.dispatch_one(repository)
    await domain.execute("DELETE FROM leases")
    await domain.execute(
        "UPDATE runs SET state = 'dispatched', agent = NULL, lease_token = NULL WHERE id = $1", order.run_id
    )


async def prepared(domain: Domain, run: ClaimedRun) -> None:
    await domain.running.prepared(run.hold, base_sha="b" * 40, base_branch="main", events=[LOG])


async def lose(domain: Domain, _: object) -> None:
    await domain.execute("UPDATE leases SET expires_at = now() - interval '1 hour'")
    await domain.lose()


CASES = {
    "submit": Case(nothing, submit, commit=b"Change one thing"),  # in a statement, which commits by itself
    "submit with a key": Case(nothing, submit_with_key),
    "admit": Case(admissible, lambda domain, _: domain.admitting.admit(), commit=b"agent-1"),  # in a statement
    "claim": Case(
        ordered,
        lambda domain, order: domain.claim(order),
        commit=lambda order: order.token.bytes,  # in a statement, too
    ),
    "recall an order": Case(
        ordered,
        lambda domain, order: domain.scheduling.recall_orders([order]),
        commit=lambda order: order.token.bytes,
    ),
    "lose": Case(started, lose),
    "lose what nobody took up": Case(ordered, lose),
    "prepared": Case(claimed, prepared),
    # In a statement each, which commits by itself; they hold these words.
    "checkpoint": Case(started, checkpoint, commit=b"told once"),
    "tell": Case(started, lambda domain, run: domain.running.tell(run.hold, [LOG]), commit=b"told once"),
    "count void": Case(started, count_void, commit=b"told once"),
    "complete": Case(started, complete),
    "deliver": Case(started, deliver),
    "fail": Case(started, fail),
    "interrupt": Case(started, interrupt),
    "cancel": Case(started, lambda domain, run: domain.cancelling.request(domain.client, run.hold.job_id)),
    "say": Case(talked, lambda domain, run: domain.say(run.hold.job_id, "hello")),
    "publish events": Case(queued, lambda domain, _: domain.outbox.next(0, most=100)),
    "recall": Case(left_dispatched, lambda domain, _: domain.scheduling.recall(overdue=timedelta())),
}


@pytest.fixture
async def linked(domain: Domain, postgres_link: Link) -> AsyncIterator[Domain]:
    """The same domain, over a line that can break; one connection, which is open."""
    database = Database(postgres_link.url, size=1, name="linked")
    linked = Domain(database)
    linked.client = domain.client
    await linked.rows("SELECT")
    yield linked
    await database.close()


async def picture(domain: Domain) -> dict[str, list[str]]:
    """All that was stored, without ids and times."""
    shown = {
        "runs": "concat_ws(' ', state, attempt, dispatch, exit_reason, cancel_requested_at IS NOT NULL, input_tokens)",
        "jobs": "concat_ws(' ', state, last_event_number, runs_active, runs_completed, runs_failed)",
        f"{SEQUENCED} e": "concat_ws(' ', number, kind, attempt, place)",
        "leases": "concat_ws(' ', kind, taken, expires_at > now())",
        "messages": "concat_ws(' ', number, role, attempt)",
        "void_usage": "concat_ws(' ', model, input_tokens, attempt)",
        "spending": "concat_ws(' ', tokens, microusd)",
        "inbox": "concat_ws(' ', number, body)",
        "changesets": "state",
        "idempotency_keys": "key",
        "event_cursor": "concat_ws(' ', assigned, sent)",
    }
    return {
        table: [row["line"] for row in await domain.rows(f"SELECT {words} AS line FROM {table} ORDER BY 1")]
        for table, words in shown.items()
    }


async def forget(domain: Domain) -> None:
    for table in (
        "events",
        "event_batches",
        "messages",
        "model_usage",
        "void_usage",
        "spending",
        "inbox",
        "changesets",
        "leases",
        "idempotency_keys",
        "runs",
        "jobs",
    ):
        await domain.execute(f"DELETE FROM {table}")
    await domain.execute("UPDATE event_cursor SET assigned = 0, published = 0, sent = 0")


@pytest.mark.usefixtures("postgres_is_up_long")
@pytest.mark.parametrize("name", CASES)
async def test_what_was_committed_unheard_is_done_once(
    domain: Domain, linked: Domain, postgres_link: Link, name: str
) -> None:
    """Compared with the same thing done without a fault."""
    case = CASES[name]
    await case.act(linked, await case.prepare(domain, REPOSITORY.format("one")))
    wanted = await picture(domain)
    await forget(domain)

    prepared = await case.prepare(domain, REPOSITORY.format("one"))
    postgres_link.drop_answer_to(case.commit(prepared) if callable(case.commit) else case.commit)
    await case.act(linked, prepared)

    assert postgres_link.dropped == 1, "the fault did not meet it"
    assert await picture(domain) == wanted
