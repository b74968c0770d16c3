"""The tracker goes on whatever one look comes to; it is the vcs service's, on the domain's real database."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from services.jobs.tracking import Tracking
from services.jobs.unit import Rung, Units
from services.runtime.postgres import Database
from services.vcs.acting import Hands
from services.vcs.errors import ForgeRefusedError
from services.vcs.forges import ChangeRef, ChangeState, ChangeStatus
from services.vcs.publishing.changesets import Changesets
from services.vcs.publishing.tracker import Tracker
from tests.integration.jobs.changes import open_change
from tests.integration.jobs.domain import Domain
from tests.integration.vcs.hands import Always

NOBODY = "postgresql://127.0.0.1:1/nobody"


@dataclass
class Asked:
    """The forges and one of them at once: everything is open there."""

    numbers: list[int | None] = field(default_factory=list)
    refuses: str = ""
    """Why it does not show anything."""

    def named(self, _: str) -> "Asked":
        return self

    async def look_up(self, change: ChangeRef) -> ChangeStatus:
        self.numbers.append(change.number)
        if self.refuses:
            raise ForgeRefusedError(self.refuses)
        return ChangeStatus(ChangeState.OPEN, number=change.number)

    async def close(self, change: ChangeRef, *, comment: str, delete_branch: bool) -> ChangeStatus:
        """As the local forge does where the branch holds more than was pushed."""
        if delete_branch:
            raise ForgeRefusedError("the branch is at another commit")
        assert comment
        return ChangeStatus(ChangeState.CLOSED, number=change.number)


async def unheard(_: Rung) -> None: ...


async def test_postgres_away_under_a_look_does_not_end_the_tracker(domain: Domain) -> None:
    for number in (1, 2):
        await open_change(domain, number)
    await domain.execute("UPDATE changesets SET observe_at = now()")
    away, asked = Database(NOBODY, size=1, name="away"), Asked()
    changesets = changesets_of(Tracking(Units(away, ring=unheard)), asked)

    await Tracker(domain.tracking, changesets).run_once()

    assert sorted(asked.numbers, key=str) == [1, 2]
    states = await domain.rows("SELECT observed_at, observe_at > now() AS later FROM changesets")
    assert [(row["observed_at"], row["later"]) for row in states] == [(None, True)] * 2
    await away.close()


async def test_what_is_stale_is_closed_though_its_branch_has_to_stay(domain: Domain) -> None:
    changeset_id = await open_change(domain, 1)
    await domain.execute("UPDATE changesets SET observe_at = now(), close_comment = 'stale', deletes_branch = true")

    await Tracker(domain.tracking, changesets_of(domain.tracking, Asked())).run_once()

    assert (await domain.row("changesets", changeset_id))["state"] == "closed"


async def test_why_a_forge_shows_a_change_no_more_is_told_until_it_does_again(domain: Domain) -> None:
    changeset_id = await open_change(domain, 1)
    shown = []
    for asked in (Asked(refuses="the repository is gone, or was renamed"), Asked()):
        await domain.execute("UPDATE changesets SET observe_at = now()")
        await Tracker(domain.tracking, changesets_of(domain.tracking, asked)).run_once()
        shown.append(await domain.reading.changeset(domain.client, changeset_id))

    assert [(each.state.value, each.error) for each in shown] == [
        ("open", "the repository is gone, or was renamed"),
        ("open", None),
    ]


def changesets_of(tracking: Tracking, forges: Any) -> Changesets:
    nobody_fetches: Any = None
    return Changesets(tracking, Always(Hands(nobody_fetches, forges)), every=timedelta(minutes=1), allow_local=False)
