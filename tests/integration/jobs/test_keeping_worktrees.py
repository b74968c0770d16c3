"""Whose worktrees are still wanted: what agents hold, and of ended runs what their jobs keep, while they do."""

from __future__ import annotations

import pytest

from services.contracts.words import ChangesetState, ExitReason
from services.jobs.models import ClaimedRun
from services.jobs.rescuing import Rescuing
from services.jobs.tracking import Observed
from tests.integration.jobs.changes import HOUR, claimed, on_github, publish, show, store, tracked
from tests.integration.jobs.domain import Domain


async def kept(domain: Domain, run: ClaimedRun) -> int | None:
    return (await Rescuing(domain.database).attempts_kept([run.hold.run_id])).get(run.hold.run_id)


async def started(domain: Domain, *, keeps: bool = True) -> ClaimedRun:
    run = await domain.start()
    if keeps:
        statement = """UPDATE jobs SET options = options || '{"keepWorktreeSeconds": 3600}' WHERE id = $1"""
        await domain.execute(statement, run.hold.job_id)
    return run


async def test_it_is_kept_from_the_hand_over_on_and_not_before(domain: Domain) -> None:
    run = await started(domain)
    assert await Rescuing(domain.database).attempts_held([run.hold.run_id]) == {run.hold.run_id: 1}
    assert await kept(domain, run) is None
    changeset_id = await store(domain, run)
    assert await Rescuing(domain.database).attempts_held([run.hold.run_id]) == {}
    assert await kept(domain, run) == 1
    await show(domain, await claimed(domain, changeset_id), on_github(1))
    assert await kept(domain, run) == 1


@pytest.mark.parametrize("state", [ChangesetState.MERGED, ChangesetState.CLOSED])
async def test_it_goes_once_its_change_is_merged_or_closed(domain: Domain, state: ChangesetState) -> None:
    run = await started(domain)
    changeset_id = await publish(domain, run, 1)
    await domain.tracking.record(await tracked(domain, changeset_id), Observed(state, merge_sha="d" * 40), again=HOUR)
    assert await kept(domain, run) is None


async def test_it_goes_once_its_time_is_over_and_was_never_kept_unless_asked(domain: Domain) -> None:
    run, other, without = await started(domain), await started(domain, keeps=False), await started(domain)
    for each, number in ((run, 1), (other, 2)):
        await publish(domain, each, number)
    await domain.finish(without)
    assert [await kept(domain, each) for each in (run, other, without)] == [1, None, 1]
    await domain.execute("UPDATE runs SET finished_at = finished_at - interval '61 minutes'")
    assert [await kept(domain, each) for each in (run, other, without)] == [None] * 3


async def test_what_is_tried_again_or_failed_is_not_kept(domain: Domain) -> None:
    again, failed = await started(domain), await started(domain)
    await domain.running.interrupted(again.hold)
    await domain.running.fail(failed.hold, ExitReason.STUCK, error="stuck")
    assert [await kept(domain, each) for each in (again, failed)] == [None, None]
