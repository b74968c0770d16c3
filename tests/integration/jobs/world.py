"""The world of the model test: what everyone in it remembers, and how things are done and checked."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from uuid import UUID

from services.jobs.errors import LeaseLostError
from services.jobs.leases import Node, tell_gone, tell_seen
from services.jobs.models import Client, Hold
from services.jobs.publishing import PublicationHold
from services.jobs.scheduling import Dispatched
from services.runtime.postgres import Record
from tests.integration.jobs.conftest import TABLES
from tests.integration.jobs.domain import Domain
from tests.integration.jobs.model import FINAL, Look, Watcher, look

AGENTS = ("agent-1", "agent-2", "agent-3")

# What can be done, by who does it: the names of the methods of `Players`.
AGENT_WRITES = (
    *("checkpoint", "complete", "fail", "retry", "interrupted", "postpone", "store", "hand_over", "park"),
    *("report_cancelled", "renew"),
)
VCS_WRITES = ("delivered", "push_failed", "push_again", "push_postponed", "renew_push")
FORGE_SAYS = ("say_open", "say_merged", "say_closed", "ask_about_due")
TAKES = ("claim", "claim_twice", "claim_stale")
CLAIMS = (*TAKES, "begin_at_once", "claim_all", "claim_publication")
USERS_WISHES = ("cancel_job", "cancel_run", "say", "end_conversation", "retry_job", "publish_later")
SWEEPS = (
    *("admit", "recall_orders", "lose", "end_overdue", "cancel_idle", "ripen", "release_held", "wake", "end_idle"),
    *("send_publications", "publish_events", "publish_events_and_die"),
)
TIMES_WORK = ("expire", "pass_deadlines", "pass_delays")
_OF_TASKS = ("say", "end_conversation")
_LED_TO_BY = {
    **dict.fromkeys(("claim", "claim_twice", "begin_at_once", "recall_orders"), ("admit",)),
    "claim_stale": ("recall_orders", "lose", "admit"),
    **dict.fromkeys((*AGENT_WRITES, "expire"), ("claim",)),
    "report_cancelled": ("admit", "claim_all", "cancel_job"),
    "park": ("admit", "claim_all"),
    "say": ("park",),
    "claim_publication": ("hand_over",),
    "retry_job": ("fail",),
    "publish_later": ("store",),
    **dict.fromkeys(FORGE_SAYS, ("delivered",)),
    **dict.fromkeys(VCS_WRITES, ("claim_publication",)),
}


class World:
    """Two clients, three agents, some vcs nodes and schedulers, zombies among them."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.watcher = Watcher()
        self.clients: list[Client] = []
        self.capacity = dict.fromkeys(AGENTS, 4)
        self.places: dict[str, int] = {}
        """What the agents said that they could hold when runs were last given to them."""
        self.orders: defaultdict[UUID, list[Dispatched]] = defaultdict(list)
        """Each is addressed to an agent, which may hear it at once, late, twice, or never."""
        self.begun: set[UUID] = set()
        """Tokens of orders that were begun with at once, of which Postgres was told nothing."""
        self.holds: defaultdict[UUID, list[Hold]] = defaultdict(list)
        self.pushes: defaultdict[UUID, list[PublicationHold]] = defaultdict(list)
        self.push_orders: dict[UUID, int] = {}
        self.keys: dict[tuple[str, str], tuple[str, UUID]] = {}
        self.sent: dict[int, UUID] = {}
        self.confirmed = 0
        self.alone = True
        """Only one thing is done in this step, so that its answer can be foretold."""
        self.dead: set[UUID] = set()
        """Tokens that had lost their run or changeset before this step."""

    @property
    def seen(self) -> Look:
        return self.watcher.before

    async def open(self) -> None:
        for table in TABLES:
            await self.domain.execute(f"DELETE FROM {table}")
        await self.domain.execute("UPDATE event_cursor SET assigned = 0, published = 0, sent = 0")
        self.clients = [await self.domain.new_client(name) for name in ("anna", "bob")]
        self.domain.client = self.clients[0]

    async def _live(self) -> None:
        """Tell which agents live: they are forgotten after a lease, and when their orders are recalled."""
        self.places = dict(self.capacity)
        async with self.domain.database.connection() as connection:
            for name, slots in self.capacity.items():
                node = Node(name, "agent", capacity=slots)
                tell = tell_seen if slots else tell_gone
                await tell(connection, node)

    def pick(self, name: str, which: int) -> Record | None:
        """The run to do ``name`` on: where possible one on which it makes sense."""
        runs = self._suited(name) or list(self.seen.runs.values())
        return runs[which % len(runs)] if runs else None

    async def reach(self, name: str, which: int) -> None:
        """Do first what leads to a run on which ``name`` makes sense, if there is none."""
        if self.has(name):
            return
        for earlier in _LED_TO_BY.get(name, ()):
            await self.reach(earlier, which)
            run = self.pick(earlier, which)
            if run is not None:
                await self.do([earlier], run)

    def has(self, name: str) -> bool:
        """Whether there is a run on which ``name`` makes sense."""
        return bool(self._suited(name))

    def _suited(self, name: str) -> list[Record]:
        return [run for run in self.seen.runs.values() if self._suits(name, run)]

    def _suits(self, name: str, run: Record) -> bool:
        changeset = self.seen.changeset_of(run["id"])
        match name:
            case "claim" | "claim_twice":
                suits = self.seen.is_untaken(run)
            case "begin_at_once" | "recall_orders":
                suits = self.seen.is_untaken(run) and not self.is_begun(run)
            case "claim_stale":
                suits = self.seen.is_untaken(run) and len(self.orders[run["id"]]) > 1
            case "claim_publication":
                suits = changeset is not None and changeset["state"] == "queued"
            case "publish_later":
                suits = changeset is not None and changeset["state"] in ("stored", "failed")
            case _ if name in FORGE_SAYS:
                suits = changeset is not None and changeset["state"] in ("open", "closed")
            case _ if name in VCS_WRITES:
                suits = changeset is not None and changeset["state"] == "pushing"
            case _ if name in (*AGENT_WRITES, "expire"):
                is_held = run["state"] == "running" and (self.is_begun(run) or not self.seen.is_untaken(run))
                suits = is_held and self._suits_agent(name, run)
            case "retry_job":
                suits = self.seen.jobs[run["job_id"]]["finished_at"] is not None
            case _:
                suits = run["state"] not in FINAL and (name not in _OF_TASKS or self._is_task(run))
        return bool(suits)

    def is_begun(self, run: Record) -> bool:
        """Whether its agent has begun with it, and only that agent knows."""
        return run["lease_token"] in self.begun

    def _suits_agent(self, name: str, run: Record) -> bool:
        match name:
            case "park":
                return self._is_task(run)
            case "store" | "hand_over":
                return run["base_sha"] is not None
            case "report_cancelled":
                return run["cancel_requested_at"] is not None
            case _:
                return True

    async def do(self, names: Sequence[str], run: Record) -> None:
        """Do all of these at once, those that concern a run on ``run``; then check what came of it."""
        self.alone = len(names) == 1
        if "admit" in names:
            await self._live()
        answers = await asyncio.gather(*(getattr(self, name)(run) for name in names), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        await self.check()

    async def check(self) -> None:
        now = await look(self.domain.database)
        self.watcher.check(now, places=self.places, begun=self.begun)
        known = {hold.token for holds in self.holds.values() for hold in holds}
        for lease in now.leases.values():
            is_wrong = lease["kind"] == "run" and lease["taken"] != (lease["token"] in known)
            assert not is_wrong or (lease["token"] in self.begun and not lease["taken"]), (
                f"{lease['id']} was taken up, and is as if it were not, or the other way round"
            )
        known |= {hold.token for holds in self.pushes.values() for hold in holds}
        self.dead = known - {lease["token"] for lease in now.leases.values()}

    def _is_task(self, run: Record) -> bool:
        return bool(self.seen.jobs[run["job_id"]]["kind"] == "task")

    def _client(self, run: Record) -> Client:
        return next(client for client in self.clients if client.id == run["client_id"])

    async def _fenced(self, token: UUID, write: Awaitable[object], *, is_refused: bool) -> None:
        """Write with ``token``: one that is dead must be refused, and nothing is changed then.

        ``is_refused``: also one that is alive.
        """
        is_dead = token in self.dead
        before = await self.domain.fingerprint() if is_dead and self.alone else None
        try:
            await write
        except LeaseLostError:
            assert is_dead or is_refused or not self.alone, "the holder was refused"
        else:
            assert not is_dead, "a zombie wrote"
            assert not (is_refused and self.alone), "written although the cancel was accepted"
        assert before is None or before == await self.domain.fingerprint(), "a refused write changed something"
