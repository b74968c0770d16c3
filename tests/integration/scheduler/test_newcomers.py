"""What a round of admission is for: one job that was heard of, or whatever there may be."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

import pytest

from services.jobs import admitting
from services.jobs.admitting import Admitted, Admitting
from services.jobs.fairness import Candidate
from services.runtime.jetstream import Bus
from services.runtime.postgres import StoreUnavailableError
from services.scheduler.admission import Admission
from tests.integration.jobs.domain import Domain
from tests.integration.scheduler.hearing import Agent
from tests.integration.waiting import DEADLINE_SECONDS

PATIENCE = timedelta(seconds=DEADLINE_SECONDS)


class Noting(Admitting):
    """Notes what each round is for."""

    def __init__(self, domain: Domain) -> None:
        super().__init__(domain.units, most_runs=100)
        self.rounds: list[Candidate | None] = []
        self.anew: list[bool] = []
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens in each round."""

    async def admit(self, newcomer: Candidate | None = None, *, anew: bool = False) -> Admitted:
        self.rounds.append(newcomer)
        self.anew.append(anew)
        self.meanwhile()
        return await super().admit(newcomer, anew=anew)


async def heard(domain: Domain) -> Candidate:
    await domain.submit()
    return domain.newcomers[-1]


async def test_a_job_that_is_all_that_was_heard_of_is_what_the_round_is_for(domain: Domain, bus: Bus) -> None:
    noting, agent = Noting(domain), Agent("agent-1", domain)
    admission = Admission(noting, domain.scheduling, bus)
    await agent.listen(bus, 10)
    await admission.run_once()
    new = await heard(domain)
    admission.expect(new)
    await admission.run_once()
    await admission.run_once()
    await admission.settle(PATIENCE)

    assert (noting.rounds, noting.anew) == ([None, new, None], [False, True, False])
    assert len(agent.messages) == 1
    rows = await domain.rows("SELECT job_id FROM runs WHERE id = ANY($1)", [order.run_id for order in agent.ordered])
    assert [row["job_id"] for row in rows] == [new.job_id]


@pytest.mark.parametrize("others", ["two jobs", "a bell", "a bell before"])
async def test_a_job_beside_anything_else_is_looked_at_with_it(domain: Domain, bus: Bus, others: str) -> None:
    noting = Noting(domain)
    admission = Admission(noting, domain.scheduling, bus)
    await Agent("agent-1", domain).listen(bus, 10)
    if others == "a bell before":
        admission.look()
    admission.expect(await heard(domain))
    match others:
        case "two jobs":
            admission.expect(await heard(domain))
        case "a bell":
            admission.look()
    await admission.run_once()
    await admission.settle(PATIENCE)

    assert (noting.rounds, noting.anew) == ([None], [True])
    assert not await domain.rows("SELECT FROM runs WHERE state <> 'running'")


async def test_a_job_that_was_heard_of_while_it_was_given_away_is_done_with(domain: Domain, bus: Bus) -> None:
    noting = Noting(domain)
    admission = Admission(noting, domain.scheduling, bus)
    await Agent("agent-1", domain).listen(bus, 10)
    new = await heard(domain)
    noting.meanwhile = lambda: admission.expect(new)
    await admission.run_once()
    noting.meanwhile = lambda: None
    await admission.run_once()
    await admission.settle(PATIENCE)

    assert noting.rounds == [None, None]


async def test_a_job_that_is_heard_of_between_two_rounds_is_not_passed_by(
    domain: Domain, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of a look is not given to others before it."""
    monkeypatch.setattr(admitting, "_MOST_AT_FIRST", 1)
    noting = Noting(domain)
    admission = Admission(noting, domain.scheduling, bus)
    await Agent("agent-1", domain).listen(bus, 10)
    for _ in range(2):
        await domain.submit()
    new = await heard(domain)

    def hear_once() -> None:
        noting.meanwhile = lambda: None
        admission.expect(new)

    noting.meanwhile = hear_once
    await admission.run_once()
    await admission.settle(PATIENCE)

    assert noting.anew == [False, True]
    assert not await domain.rows("SELECT FROM runs WHERE state <> 'running'")


async def test_a_round_for_one_job_is_no_look_at_what_else_there_may_be(domain: Domain, bus: Bus) -> None:
    """A command whose bell was lost is acted upon unless there was one just now."""
    admission = Admission(Noting(domain), domain.scheduling, bus)
    await Agent("agent-1", domain).listen(bus, 10)
    await admission.run_once()
    looked_at = admission.looked_at
    admission.expect(await heard(domain))
    await admission.run_once()
    assert admission.looked_at == looked_at > 0
    await admission.run_once()
    await admission.settle(PATIENCE)
    assert admission.looked_at > looked_at


class Hidden(Admitting):
    """Postgres goes away before anything can be hidden."""

    async def hide(self, short: Sequence[UUID]) -> None:
        if short:
            raise StoreUnavailableError("away")


async def test_what_was_given_away_is_told_whatever_becomes_of_the_rest(domain: Domain, bus: Bus) -> None:
    busy, agent = await domain.start("https://a/0"), Agent("agent-1", domain)
    await domain.submit("https://a/0", "https://a/1")
    await domain.execute("UPDATE runs SET branch = $1 WHERE repository = 'https://a/0'", busy.branch)
    admission = Admission(Hidden(domain.units, most_runs=100), domain.scheduling, bus)
    await agent.listen(bus, 10)
    with pytest.raises(StoreUnavailableError):
        await admission.run_once()
    await admission.settle(PATIENCE)

    assert len(agent.ordered) == 1
