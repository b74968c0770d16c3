"""Whatever users, agents, vcs nodes and schedulers do, in whatever order and at once, no invariant breaks.

A Hypothesis state machine drives the real domain on a real PostgreSQL. What it draws never depends on what the database
answered, since who wins a race differs each time: a run is drawn as a number, and is the n-th of those that suit.
`QUARTERDECK_MODEL_EXAMPLES` tries so many random examples, instead of a few that are the same each time.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from quarterdeck.stack.embedded import EmbeddedServers
from services.runtime.postgres import Database
from tests.integration.conftest import drop_database, execute
from tests.integration.jobs.domain import Domain, job_request
from tests.integration.jobs.players import Players
from tests.integration.jobs.users import MOST_JOBS
from tests.integration.jobs.world import (
    AGENT_WRITES,
    AGENTS,
    CLAIMS,
    FORGE_SAYS,
    SWEEPS,
    TAKES,
    TIMES_WORK,
    USERS_WISHES,
    VCS_WRITES,
)

EXAMPLES = int(os.environ.get("QUARTERDECK_MODEL_EXAMPLES", "0"))
FEW_EXAMPLES = 15
STEPS = 40
SECONDS_AN_EXAMPLE = 20
STEP_SECONDS = 60
WRITES = (*AGENT_WRITES, *VCS_WRITES, *FORGE_SAYS, *CLAIMS)
TALK = (
    "say",
    "say",
    "park",
    "park",
    "checkpoint",
    "claim_all",
    "wake",
    "pass_deadlines",
    "end_idle",
    "end_conversation",
)
ORDERS_GO_WRONG = (
    ("expire",),
    ("expire", "lose"),
    ("expire", "lose", "admit"),
    ("recall_orders",),
    ("recall_orders", "lose", "admit"),
    ("pass_deadlines", "recall_orders", "lose"),
)
TAKES_BACK = (("lose",), ("recall_orders",), ("recall_orders", "lose"), ("lose", "admit"))
FATES = (("expire", "lose"), ("pass_deadlines", "end_overdue"))
PUSHES_COME_BACK = (("push_again",), ("push_postponed", "pass_delays"), ("expire", "lose"))
REPOSITORIES = [f"https://forge.example/a/{name}.git" for name in ("one", "two")]
LATER = datetime(2100, 1, 1, tzinfo=UTC).isoformat()

nth = st.integers(0, 31)
slots = st.sampled_from([None, None, None, 3, 2, 1, 0])
named_slots = st.fixed_dictionaries({"default": slots, "byName": st.dictionaries(st.just("anna"), st.integers(0, 2))})
limits = st.fixed_dictionaries(
    {},
    optional={
        "fleet": slots,
        "queues": st.fixed_dictionaries({"code": slots, "task": slots}),
        "client": named_slots,
        "repository": st.fixed_dictionaries({"default": slots}),
        "queuedJobs": st.fixed_dictionaries({"default": st.none() | st.integers(1, 4)}),
    },
)
requests = st.fixed_dictionaries(
    {"kind": st.sampled_from(["code", "code", "task"]), "priority": st.integers(-1, 1)},
    optional={
        "maxParallel": st.integers(1, 2),
        "notBefore": st.just(LATER),
        "queueDeadlineSeconds": st.just(3_600),
        "name": st.just("nightly"),
        "onExisting": st.sampled_from(["update", "update", "replace", "skip", "separate"]),
    },
)
later = st.sampled_from((*VCS_WRITES, *FORGE_SAYS, "delivered", "publish_later", "expire", "lose", "claim_publication"))
repositories = st.lists(st.sampled_from(REPOSITORIES), min_size=1, max_size=3)


class Interleaving(RuleBasedStateMachine):
    """Each rule does one thing, or several at once, and checks all invariants."""

    def __init__(self, loop: asyncio.AbstractEventLoop, database: Database) -> None:
        super().__init__()
        self._loop = loop
        self._players = Players(Domain(database))
        self._is_broken = False

    def _await(self, step: Coroutine[Any, Any, None]) -> None:
        self._is_broken = True
        self._loop.run_until_complete(asyncio.wait_for(step, STEP_SECONDS))
        self._is_broken = False

    def _do(self, *steps: str | Sequence[str], which: int, like: str) -> None:
        """Do these one by one, what is in a sequence at once, all on one run: one that ``like`` makes sense on."""
        players = self._players
        self._await(players.reach(like, which))
        run = players.pick(like, which)
        if run is None:
            return
        for step in steps:
            names = [step] if isinstance(step, str) else step
            self._await(players.do(names, players.seen.runs[run["id"]]))

    def _order(self, which: int) -> None:
        """Have a new job, if no run waits to be taken up: most are, soon after they were given to an agent."""
        if not self._players.has("claim"):
            fields = {"kind": "task", "queueDeadlineSeconds": 3_600}
            self.submit(which % 2, [], fields, key=None, times=1)

    @initialize(wanted=repositories, kind=st.sampled_from(["code", "task"]))
    def open(self, wanted: list[str], kind: str) -> None:
        self._await(self._players.open())
        for client in range(2):
            self.submit(client, wanted, {"kind": kind}, key=None, times=1)

    @rule(
        client=st.integers(0, 1),
        wanted=repositories,
        fields=requests,
        key=st.sampled_from([None, None, "a", "b"]),
        times=st.integers(1, 3),
    )
    def submit(self, client: int, wanted: list[str], fields: dict[str, Any], key: str | None, times: int) -> None:
        """Submit, or repeat a submit."""
        players = self._players
        if len(players.seen.jobs) < MOST_JOBS:
            request = job_request(*wanted, **fields)
            self._await(players.submit(players.clients[client], request, key=key, times=times))

    @rule(wish=st.sampled_from(USERS_WISHES), which=nth)
    def ask(self, wish: str, which: int) -> None:
        self._do(wish, which=which, like=wish)

    @rule(which=nth)
    def do_again(self, which: int) -> None:
        self._do("retry_job", which=which, like="retry_job")

    @rule(claim=st.sampled_from(CLAIMS), which=nth)
    def claim(self, claim: str, which: int) -> None:
        self._do(claim, which=which, like=claim)

    @rule(take=st.sampled_from(TAKES), fate=st.sampled_from(ORDERS_GO_WRONG), which=nth)
    def take_late(self, take: str, fate: tuple[str, ...], which: int) -> None:
        """An order is heard by its agent only after its run was, perhaps, given to another."""
        self._order(which)
        self._do(*fate, take, which=which, like="claim")

    @rule(back=st.sampled_from(("expire", "recall_orders")), writes=st.permutations(AGENT_WRITES), which=nth)
    def hear_an_old_order(self, back: str, writes: list[str], which: int) -> None:
        """While a newer one is on its way, and after that was taken up."""
        self._order(which)
        self._do(back, "lose", "admit", "claim_stale", "claim", "claim_stale", writes[0], which=which, like="claim")

    @rule(take=st.sampled_from(TAKES), against=st.sampled_from(TAKES_BACK), which=nth)
    def take_as_it_is_taken_back(self, take: str, against: Sequence[str], which: int) -> None:
        self._order(which)
        self._do("expire", (take, *against), "renew", which=which, like="claim")

    @rule(is_heard=st.booleans(), which=nth)
    def cancel_before_it_is_taken(self, is_heard: bool, which: int) -> None:
        self._order(which)
        self._do("cancel_run", *(["claim"] if is_heard else ["expire", "lose"]), which=which, like="claim")

    @rule(write=st.sampled_from(AGENT_WRITES), which=nth)
    def work(self, write: str, which: int) -> None:
        self._do(write, which=which, like=write)

    @rule(write=st.sampled_from(VCS_WRITES), which=nth)
    def push(self, write: str, which: int) -> None:
        self._do(write, which=which, like=write)

    @rule(what=st.sampled_from(FORGE_SAYS), which=nth)
    def hear_of_forge(self, what: str, which: int) -> None:
        self._do(what, which=which, like=what)

    @rule(end=st.sampled_from(["store", "push_failed"]), steps=st.lists(later, min_size=2, max_size=5), which=nth)
    def publish_late(self, end: str, steps: list[str], which: int) -> None:
        """What its run only stored, or failed to publish, is asked for again; then whatever may happen to it."""
        self._do(end, "publish_later", "send_publications", "claim_publication", *steps, which=which, like=end)

    @rule(comes_back=st.sampled_from(PUSHES_COME_BACK), which=nth)
    def cancel_beside_a_push(self, comes_back: tuple[str, ...], which: int) -> None:
        """A cancel comes too late for a run that is being pushed, and the push comes to nothing."""
        again = (*comes_back, "send_publications", "claim_publication")
        self._do("cancel_job", *again, which=which, like="push_again")

    @rule(sweep=st.sampled_from(SWEEPS), which=nth)
    def sweep(self, sweep: str, which: int) -> None:
        self._do(sweep, which=which, like=sweep)

    @rule(what=st.sampled_from(TIMES_WORK), which=nth)
    def time_passes(self, what: str, which: int) -> None:
        self._do(what, which=which, like=what)

    @rule(fate=st.sampled_from(FATES), like=st.sampled_from(WRITES), is_cancelled=st.booleans(), which=nth)
    def abandon(self, fate: tuple[str, ...], like: str, is_cancelled: bool, which: int) -> None:
        """Whoever has the run, or its changeset, is heard of no more, until it comes back as a zombie."""
        self._do(*(["cancel_run"] if is_cancelled else []), *fate, which=which, like=like)

    @rule(words=st.lists(st.sampled_from(TALK), min_size=2, max_size=6), which=nth)
    def talk(self, words: list[str], which: int) -> None:
        self._do(*words, which=which, like="park")

    @rule(writes=st.permutations(AGENT_WRITES), which=nth)
    def disobey(self, writes: list[str], which: int) -> None:
        """Try this and that with a run whose cancel was accepted."""
        self._do("cancel_run", *writes[:5], which=which, like=writes[0])

    @rule(names=st.lists(st.sampled_from((*WRITES, *USERS_WISHES, *SWEEPS)), min_size=2, max_size=4), which=nth)
    def at_once(self, names: list[str], which: int) -> None:
        self._do(names, which=which, like=names[0])

    @rule(write=st.sampled_from(WRITES), against=st.sampled_from((*USERS_WISHES, *SWEEPS)), which=nth)
    def race(self, write: str, against: str, which: int) -> None:
        """One who holds the run, or wants it, against one who would take it away."""
        self._do((write, against), which=which, like=write)

    @rule(write=st.sampled_from(WRITES), which=nth)
    def race_with_its_end(self, write: str, which: int) -> None:
        """A lease has run out, and its holder writes at the moment in which it is taken away."""
        self._do("expire", (write, "lose"), which=which, like=write)

    @rule(agent=st.sampled_from(AGENTS), slots=st.integers(0, 6))
    def change_capacity(self, agent: str, slots: int) -> None:
        self._players.capacity[agent] = slots

    @rule(wanted=limits)
    def limit(self, wanted: dict[str, Any]) -> None:
        self._await(self._players.limit(wanted))

    def teardown(self) -> None:
        if not self._is_broken and self._players.seen.runs:
            self._await(self._players.drain())


@pytest.fixture
async def model_database_url(servers: EmbeddedServers, template_database: str) -> AsyncIterator[str]:
    """A database that no other test's pool is connected to: this one has an event loop of its own."""
    name = f"test_model_{secrets.token_hex(4)}"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield servers.postgres.database_url(name)
    await drop_database(servers, name)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.timeout(max(180, EXAMPLES * SECONDS_AN_EXAMPLE))
@pytest.mark.usefixtures("postgres_is_up_long")
def test_no_interleaving_breaks_an_invariant(model_database_url: str, loop: asyncio.AbstractEventLoop) -> None:
    database = Database(model_database_url, size=8, name="model")

    class Here(Interleaving):
        def __init__(self) -> None:
            super().__init__(loop, database)

    try:
        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=EXAMPLES or FEW_EXAMPLES,
                stateful_step_count=STEPS,
                derandomize=not EXAMPLES,
                database=None,
                deadline=None,
                print_blob=True,
                # Others' chances in a race differ each time, so that shrinking takes long and finds little.
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        loop.run_until_complete(database.close())
