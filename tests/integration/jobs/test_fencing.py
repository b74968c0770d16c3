"""Once a run is lost, whatever its old holder writes is refused and changes nothing."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from services.contracts.words import EventKind, ExitReason, Outcome, Publish
from services.jobs.errors import LeaseLostError
from services.jobs.models import Checkpoint, Hold, ModelUse, SavedTree, StoredMessage, Usage, VoidUse
from services.jobs.running import Running
from services.jobs.unit import Draft
from tests.integration.jobs.domain import COMMIT, Domain

pytestmark = pytest.mark.usefixtures("postgres_is_up_long")

STEP = Checkpoint(
    messages=[StoredMessage(1, "user", b"{}")],
    tree=SavedTree(b"patch", {"a": "1"}),
    usage=ModelUse(Usage(input_tokens=9), "a-model"),
)
WRITES: dict[str, Callable[[Running, Hold], Awaitable[object]]] = {
    "prepared": lambda running, hold: running.prepared(hold, base_sha="f" * 40, base_branch="x", events=[]),
    "checkpoint": lambda running, hold: running.checkpoint(hold, STEP),
    "count void": lambda running, hold: running.count_void(hold, [VoidUse(ModelUse(Usage(input_tokens=9), "a-model"))]),
    "tell": lambda running, hold: running.tell(hold, [Draft(EventKind.LOG, {"message": "late"})]),
    "deliver": lambda running, hold: running.deliver(hold, COMMIT, publish=Publish.PULL_REQUEST, summary="late"),
    "store": lambda running, hold: running.deliver(hold, COMMIT, publish=Publish.NONE, summary="late"),
    "complete": lambda running, hold: running.complete(hold, Outcome.NO_CHANGES, summary="late"),
    "fail": lambda running, hold: running.fail(hold, ExitReason.INTERNAL, error="late"),
    "interrupted": lambda running, hold: running.interrupted(hold),
    "retry": lambda running, hold: running.retry(hold, error="late", delay=timedelta()),
    "postpone": lambda running, hold: running.postpone(hold, error="late", delay=timedelta()),
    "cancelled": lambda running, hold: running.cancelled(hold),
}


async def refused(domain: Domain, write: str, hold: Hold) -> None:
    before = await domain.fingerprint()
    with pytest.raises(LeaseLostError):
        await WRITES[write](domain.running, hold)
    assert await domain.fingerprint() == before


@pytest.mark.parametrize("write", WRITES)
async def test_a_lost_run_refuses_its_old_holder(domain: Domain, write: str) -> None:
    old = (await domain.start()).hold
    await domain.expire(old.run_id)
    assert await domain.lose() == 1
    await refused(domain, write, old)

    new = (await domain.resume(old.run_id)).hold
    assert new.attempt == old.attempt + 1
    await refused(domain, write, old)
    assert await domain.running.holds(new.run_id, attempt=new.attempt, token=new.token)
    assert not await domain.running.holds(old.run_id, attempt=old.attempt, token=old.token)


@pytest.mark.parametrize("write", [write for write in WRITES if write not in {"cancelled", "count void"}])
async def test_a_run_to_be_cancelled_takes_its_cancel_and_what_was_paid_and_nothing_else(
    domain: Domain, write: str
) -> None:
    run = await domain.start()
    await domain.cancelling.request(domain.client, run.hold.job_id)

    await refused(domain, write, run.hold)

    await domain.running.cancelled(run.hold)
    assert await domain.run_states(run.hold.job_id) == ["cancelled"]


async def test_a_forged_token_is_refused(domain: Domain) -> None:
    run = await domain.start()

    await refused(domain, "complete", replace(run.hold, token=uuid4()))


@pytest.mark.parametrize("write", WRITES)
async def test_an_ended_run_refuses_its_holder(domain: Domain, write: str) -> None:
    run = await domain.start()
    await domain.finish(run)

    await refused(domain, write, run.hold)
