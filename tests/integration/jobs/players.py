"""Everyone who uses the domain, as the model test plays them: users, agents, vcs nodes, schedulers, and time.

Each method does one thing; where it is the only one that is done, its answer is compared with what it must be.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.contracts.words import ChangesetState, ExitReason, Outcome, Publish
from services.jobs.leases import renew
from services.jobs.models import Checkpoint, Hold, StoredMessage
from services.jobs.orders import Claim, Order
from services.jobs.publishing import PublicationHold
from services.jobs.scheduling import Dispatched
from services.jobs.tracking import Observed
from services.runtime.postgres import Record
from tests.integration.jobs.domain import COMMIT, order_of, shown
from tests.integration.jobs.model import FINAL, TO_PUSH, place_of
from tests.integration.jobs.users import Users
from tests.integration.jobs.world import AGENTS, SWEEPS

MOST_ROUNDS = 30
NOW = timedelta()


class Players(Users):
    """Their names are in `world.py`, by who plays them."""

    # What agents do.

    async def claim(self, run: Record) -> None:
        await self._claim(self.orders[run["id"]][-1:])

    async def claim_twice(self, run: Record) -> None:
        """An order that came twice, and a claim whose answer was not heard."""
        await self._claim(2 * self.orders[run["id"]][-1:], times=2)

    async def claim_stale(self, run: Record) -> None:
        await self._claim(self.orders[run["id"]][:1])

    async def claim_all(self, _: Record) -> None:
        """Every agent takes up whatever it was ever given last."""
        for orders in self._by_agent(orders[-1] for orders in self.orders.values() if orders).values():
            await self._claim(orders)

    async def _claim(self, orders: Sequence[Dispatched], *, times: int = 1) -> None:
        """Let an agent take up what it is ordered, and begin with what its last claim says."""
        claims: list[Claim] = []
        for _ in range(times):
            claims = await self.domain.running.claim([Order(order.run_id, order.token) for order in orders])
            assert not self.alone or self._are_foretold(orders, claims)
        for claim in claims:
            await self._begin(claim)

    async def begin_at_once(self, run: Record) -> None:
        """By what the order says, while its lease lasts; Postgres is not told."""
        lease = self.seen.leases.get(run["id"])
        for order in self.orders[run["id"]][-1:]:
            is_fresh = lease is not None and lease["token"] == order.token and lease["expires_at"] > datetime.now(UTC)
            claim = order_of(order).as_claim()
            if claim is None or not is_fresh or order.token in self.begun:
                continue
            self.begun.add(order.token)
            self.holds[run["id"]].append(claim.hold)
            begun = await self.domain.running.take_up(claim)
            if begun.repository is not None:
                base = self.domain.running.prepared(begun.hold, base_sha="b" * 40, base_branch="main", events=[])
                await self._fenced(order.token, base, is_refused=run["cancel_requested_at"] is not None)

    def _are_foretold(self, orders: Sequence[Dispatched], claims: Sequence[Claim]) -> bool:
        """Whether each order that is open is carried out, once, and says whether its run is to be cancelled."""
        is_cancelled = {
            order.token: self.seen.runs[order.run_id]["cancel_requested_at"] is not None
            for order in orders
            if self._is_open(order)
        }
        return sorted((claim.hold.token, claim.cancel_requested) for claim in claims) == sorted(is_cancelled.items())

    def _is_open(self, order: Dispatched) -> bool:
        """Whether nothing but its agent's silence may take the run from it; also where its lease has run out."""
        lease = self.seen.leases.get(order.run_id)
        return lease is not None and lease["token"] == order.token

    async def _begin(self, claim: Claim) -> None:
        self.holds[claim.hold.run_id].append(claim.hold)
        if claim.cancel_requested:
            await self._fenced(claim.hold.token, self.domain.running.cancelled(claim.hold), is_refused=False)
            return
        run = await self.domain.running.take_up(claim)
        if run.repository is not None:
            base = self.domain.running.prepared(run.hold, base_sha="b" * 40, base_branch="main", events=[])
            await self._fenced(run.hold.token, base, is_refused=False)

    def _by_agent(self, orders: Iterable[Dispatched]) -> dict[str, list[Dispatched]]:
        by_agent: defaultdict[str, list[Dispatched]] = defaultdict(list)
        for order in orders:
            by_agent[order.agent].append(order)
        return by_agent

    async def checkpoint(self, run: Record) -> None:
        await self._write(run, self._checkpoint)

    async def _checkpoint(self, hold: Hold) -> None:
        unread = await self.domain.messaging.unread(hold)
        (row,) = await self.domain.rows("SELECT count(*) + 1 AS next FROM messages WHERE run_id = $1", hold.run_id)
        message = StoredMessage(row["next"], "user", b"{}")
        read = max((each.number for each in unread), default=0)
        await self.domain.running.checkpoint(hold, Checkpoint([message], read_through=read))

    async def complete(self, run: Record) -> None:
        await self._write(run, lambda hold: self.domain.running.complete(hold, Outcome.NO_CHANGES, summary="done"))

    async def fail(self, run: Record) -> None:
        await self._write(run, lambda hold: self.domain.running.fail(hold, ExitReason.STUCK, error="stuck"))

    async def retry(self, run: Record) -> None:
        await self._write(run, lambda hold: self.domain.running.retry(hold, error="again", delay=NOW))

    async def interrupted(self, run: Record) -> None:
        await self._write(run, self.domain.running.interrupted)

    async def postpone(self, run: Record) -> None:
        delay = timedelta(hours=1)
        await self._write(run, lambda hold: self.domain.running.postpone(hold, error="not now", delay=delay))

    async def store(self, run: Record) -> None:
        await self._deliver(run, publish=Publish.NONE)

    async def hand_over(self, run: Record) -> None:
        await self._deliver(run, publish=Publish.PULL_REQUEST)

    async def _deliver(self, run: Record, *, publish: Publish) -> None:
        if run["base_sha"] is not None:
            deliver = self.domain.running.deliver
            await self._write(run, lambda hold: deliver(hold, COMMIT, publish=publish, summary="done"))

    async def park(self, run: Record) -> None:
        if self._is_task(run):
            await self._write(run, self._park)

    async def _park(self, hold: Hold) -> None:
        parked = await self.domain.messaging.park(hold, summary="what was said")
        assert not self.alone or parked is not self.seen.runs[hold.run_id]["has_unread"]

    async def report_cancelled(self, run: Record) -> None:
        if run["cancel_requested_at"] is not None:
            await self._write(run, self.domain.running.cancelled, although_cancelled=True)

    async def renew(self, run: Record) -> None:
        for hold in self.holds[run["id"]]:
            await self._renew(run["id"], hold.token)

    async def _renew(self, identifier: UUID, token: UUID) -> None:
        async with self.domain.database.connection() as connection:
            renewed = await renew(connection, {identifier: token})
        assert not renewed or token not in self.dead, "a lease that was lost is renewed"
        assert renewed or token in self.dead or not self.alone, "a lease that is held is not renewed"

    async def _write(
        self, run: Record, write: Callable[[Hold], Awaitable[object]], *, although_cancelled: bool = False
    ) -> None:
        """Let the first attempt that held the run write, a zombie's if there were others, and the newest."""
        holds = self.holds[run["id"]]
        for hold in dict.fromkeys((*holds[:1], *holds[-1:])):
            is_stopped = run["cancel_requested_at"] is not None and not although_cancelled
            await self._fenced(hold.token, write(hold), is_refused=is_stopped)

    # What vcs nodes do.

    async def claim_publication(self, run: Record) -> None:
        changeset = self.seen.changeset_of(run["id"])
        if changeset is None:
            return
        for dispatch in (changeset["dispatch"] - 1, self.push_orders.get(changeset["id"], 1)):
            push = await self.domain.publishing.claim(changeset["id"], run["id"], dispatch=dispatch, holder="vcs-1")
            if self.alone:
                assert (push is not None) == (self._can_be_pushed(changeset, run) and changeset["dispatch"] == dispatch)
            if push is not None:
                self.pushes[changeset["id"]].append(push.hold)

    def _can_be_pushed(self, changeset: Record, run: Record) -> bool:
        is_due = changeset["not_before"] is None or changeset["not_before"] <= datetime.now(UTC)
        is_taken = any(
            each["state"] == "pushing" and place_of(each) == place_of(changeset)
            for each in self.seen.changesets.values()
        )
        return changeset["state"] == "queued" and is_due and not is_taken and run["cancel_requested_at"] is None

    async def delivered(self, run: Record) -> None:
        delivered = self.domain.publishing.delivered
        await self._push(run, lambda hold: delivered(hold, shown("https://forge"), branch="b", commit_sha=COMMIT.sha))

    async def push_failed(self, run: Record) -> None:
        failed = self.domain.publishing.failed
        await self._push(run, lambda hold: failed(hold, reason=ExitReason.PUSH_REJECTED, error="refused"))

    async def push_again(self, run: Record) -> None:
        await self._push(run, lambda hold: self.domain.publishing.retry(hold, error="again", delay=NOW))

    async def push_postponed(self, run: Record) -> None:
        postpone = self.domain.publishing.postpone
        await self._push(run, lambda hold: postpone(hold, error="not now", delay=timedelta(hours=1)))

    async def _push(self, run: Record, write: Callable[[PublicationHold], Awaitable[object]]) -> None:
        for hold in self._pushes_of(run):
            await self._fenced(hold.token, write(hold), is_refused=False)

    async def renew_push(self, run: Record) -> None:
        for hold in self._pushes_of(run):
            await self._renew(hold.changeset_id, hold.token)

    def _pushes_of(self, run: Record) -> list[PublicationHold]:
        changeset = self.seen.changeset_of(run["id"])
        return list(self.pushes[changeset["id"]]) if changeset is not None else []

    # What forges say, and vcs nodes record.

    async def say_open(self, run: Record) -> None:
        await self._say(run, ChangesetState.OPEN)

    async def say_merged(self, run: Record) -> None:
        await self._say(run, ChangesetState.MERGED)

    async def say_closed(self, run: Record) -> None:
        await self._say(run, ChangesetState.CLOSED)

    async def _say(self, run: Record, state: ChangesetState) -> None:
        changeset = self.seen.changeset_of(run["id"])
        if changeset is not None and changeset["published_at"] is not None:
            change = await self.domain.tracking.published(changeset["id"])
            await self.domain.tracking.record(change, Observed(state), again=NOW)

    async def ask_about_due(self, _: Record) -> None:
        """Close what is to be closed."""
        for change in await self.domain.tracking.take_due(most=3, again=timedelta(hours=1)):
            state = change.state if change.close_comment is None else ChangesetState.CLOSED
            await self.domain.tracking.record(change, Observed(state), again=timedelta(hours=1))

    # What schedulers do, of their own accord and again and again.

    async def admit(self, _: Record | None = None) -> None:
        newcomers, self.domain.newcomers = self.domain.newcomers, []
        newcomer = newcomers[0] if len(newcomers) == 1 else None
        for _round in range(MOST_ROUNDS):
            admitted, newcomer = await self.domain.admitting.admit(newcomer), None
            for order in admitted.orders:
                self.orders[order.run_id].append(order)
            await self.domain.admitting.hide(admitted.short)
            if not admitted.look_again:
                return
        raise AssertionError("admission never comes to an end")

    async def recall_orders(self, run: Record) -> None:
        """Nobody heard what the run's agent was told last, of this run and of others."""
        ordered = self.orders[run["id"]][-1:]
        last = [orders[-1] for orders in self.orders.values() if orders]
        by_agent = self._by_agent(order for order in last if order.token not in self.begun)
        for order in ordered:
            await self.domain.scheduling.avoid(order.agent)
            await self.domain.scheduling.recall_orders(by_agent[order.agent])
            if self.alone:
                await self._check_recalled(order.agent)

    async def _check_recalled(self, agent: str) -> None:
        rows = await self.domain.rows("SELECT id, expires_at < clock_timestamp() AS is_over FROM leases")
        is_over = {row["id"]: row["is_over"] for row in rows}
        for lease in self.seen.leases.values():
            is_untaken = lease["kind"] == "run" and not lease["taken"] and lease["token"] not in self.begun
            if is_untaken and lease["holder"] == agent:
                assert is_over[lease["id"]], "an order that was recalled still holds its run"
            elif lease["expires_at"] > datetime.now(UTC):
                assert not is_over[lease["id"]], "a lease that nobody recalled runs out"
        assert await self.domain.rows("SELECT FROM nodes WHERE name = $1 AND capacity > 0", agent) == []

    async def lose(self, _: Record) -> None:
        await self.domain.lose()
        await self.domain.publishing.lose_expired()

    async def end_overdue(self, _: Record) -> None:
        await self.domain.scheduling.end_overdue()

    async def cancel_idle(self, _: Record) -> None:
        await self.domain.cancelling.cancel_idle(await self.domain.cancelling.waiting())

    async def ripen(self, _: Record) -> None:
        await self.domain.admitting.ripen()

    async def release_held(self, _: Record) -> None:
        await self.domain.admitting.release_held()

    async def wake(self, _: Record) -> None:
        await self.domain.messaging.wake()

    async def end_idle(self, _: Record) -> None:
        await self.domain.messaging.end_idle()

    async def send_publications(self, _: Record) -> None:
        for order in await self.domain.publishing.due(overdue=NOW):
            self.push_orders[order.changeset_id] = max(order.dispatch, self.push_orders.get(order.changeset_id, 1))

    async def publish_events(self, _: Record) -> None:
        self.confirmed = max(self.confirmed, await self._publish())

    async def publish_events_and_die(self, _: Record) -> None:
        """What was sent, if anything was, nobody remembers."""
        await self._publish()

    async def _publish(self) -> int:
        """Return the last sequence that was given out."""
        events = await self.domain.given_out(self.confirmed, most=7)
        assert events is not None or not self.alone
        for event in events or []:
            assert event.sequence is not None
            assert self.sent.setdefault(event.sequence, event.id) == event.id, "another event has the same sequence"
        return max((event.sequence or 0 for event in events or []), default=self.confirmed)

    # What time does.

    async def expire(self, run: Record) -> None:
        """Whoever holds the run or its changeset has not renewed for long."""
        for identifier in (run["id"], *(push.changeset_id for push in self._pushes_of(run))):
            await self.domain.expire(identifier)

    async def pass_deadlines(self, run: Record) -> None:
        await self.domain.execute(
            """UPDATE runs SET queue_deadline = queue_deadline - interval '1 year',
                   run_deadline = run_deadline - interval '1 year', idle_deadline = idle_deadline - interval '1 year'
               WHERE id = $1 AND finished_at IS NULL""",
            run["id"],
        )

    async def pass_delays(self, _: Record | None = None) -> None:
        await self.domain.execute("UPDATE jobs SET ready_from = now() WHERE ready_from > now()")
        await self.domain.execute("UPDATE runs SET not_before = now() WHERE not_before > now() AND finished_at IS NULL")
        await self.domain.execute("UPDATE changesets SET not_before = now() WHERE not_before > now()")

    # How it ends.

    async def drain(self) -> None:
        """With room for all and nobody in the way, every job comes to its end, and every event is published."""
        await self.domain.set_limits()
        self.capacity = dict.fromkeys(AGENTS, 100)
        rounds = 0
        while left := [run for run in self.seen.runs.values() if self._goes_on(run)]:
            rounds += 1
            assert rounds <= MOST_ROUNDS, f"these never end: {[(run['id'], run['state']) for run in left]}"
            await self._drain_once(left)
        while (before := self.confirmed) < len(self.seen.events):
            await self.do(["publish_events"], next(iter(self.seen.runs.values())))
            assert self.confirmed > before, "the last events are never published"
        assert sorted(self.sent) == list(range(1, len(self.seen.events) + 1))

    def _goes_on(self, run: Record) -> bool:
        changeset = self.seen.changeset_of(run["id"])
        return run["state"] not in FINAL or (changeset is not None and changeset["state"] in TO_PUSH)

    async def _drain_once(self, left: Sequence[Record]) -> None:
        """Every holder dies, every sweep comes by; then agents, vcs nodes and users bring to an end what they can."""
        for run in left:
            await self.expire(run)
        for name in ("pass_delays", *SWEEPS, "admit", "claim_all"):
            await self.do([name], left[0])
        # An agent that had not read what its user said could not complete.
        for name in ("checkpoint", "complete", "end_conversation", "claim_publication", "delivered"):
            for run in self._suited(name):
                await self.do([name], run)
