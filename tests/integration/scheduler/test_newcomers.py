"""What a round of admission is for: one job that was heard of, or whatever there may be."""

from datetime import timedelta

import pytest

from services.jobs.admitting import Admitted, Admitting
from services.jobs.fairness import Candidate
from services.runtime.jetstream import Bus
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

    async def admit(self, newcomer: Candidate | None = None) -> Admitted:
        self.rounds.append(newcomer)
        return await super().admit(newcomer)


async def heard(domain: Domain) -> Candidate:
    await domain.submit()
    return domain.newcomers[-1]


async def test_a_job_that_is_all_that_was_heard_of_is_what_the_round_is_for(domain: Domain, bus: Bus) -> None:
    admitting, agent = Noting(domain), Agent("agent-1", domain)
    admission = Admission(admitting, domain.scheduling, bus)
    await agent.listen(bus, 10)
    await admission.run_once()
    new = await heard(domain)
    admission.expect(new)
    await admission.run_once()
    await admission.run_once()
    await admission.settle(PATIENCE)

    assert admitting.rounds == [None, new, None]
    rows = await domain.rows("SELECT job_id FROM runs WHERE id = ANY($1)", [order.run_id for order in agent.ordered])
    assert [row["job_id"] for row in rows] == [new.job_id]


@pytest.mark.parametrize("others", ["two jobs", "a bell", "a bell before"])
async def test_a_job_beside_anything_else_is_looked_at_with_it(domain: Domain, bus: Bus, others: str) -> None:
    admitting = Noting(domain)
    admission = Admission(admitting, domain.scheduling, bus)
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

    assert admitting.rounds == [None]
    assert not await domain.rows("SELECT FROM runs WHERE state <> 'running'")
