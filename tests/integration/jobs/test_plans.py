"""The plans of what is asked all the time: with much history and a long queue, none reads a whole table."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest
from uuid_utils.compat import uuid7

from quarterdeck.stack.embedded import EmbeddedServers
from services.jobs.unit import SQL
from services.runtime.postgres import SERVER_SETTINGS, Connection, Database, Record, Statements
from tests.integration.conftest import drop_database, execute
from tests.integration.jobs.conftest import copy_of
from tests.integration.jobs.domain import Domain

CLIENT = UUID(int=1)
GROWING = {"runs", "jobs", "events", "event_batches", "changesets", "messages", "work_items", "webhook_deliveries"}
NO_FILTER: dict[str, Any] = dict.fromkeys(
    ("before", "states", "kind", "name", "created_after", "created_before", "repository", "metadata")
) | {"skipped": 0}
SOON = timedelta(seconds=10)

# 5,000 jobs of 10 finished runs, 100 of 200 queued ones, 5,000 of one, and a little of all that is under way.
FILL = """
INSERT INTO clients (id, name)
SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'client ' || n FROM generate_series(1, 20) n;

CREATE TEMP TABLE made AS
SELECT n, uuidv7((n - 6000) * interval '1 second') AS id, n <= 5000 AS ended,
       ('00000000-0000-0000-0000-' || lpad((1 + n % 20)::text, 12, '0'))::uuid AS client_id
FROM generate_series(1, 10100) n;

INSERT INTO jobs (id, client_id, kind, prompt, options, runs_total, runs_completed, state, outcome, finished_at)
SELECT id, client_id, 'code', 'x', '{}', CASE WHEN ended THEN 10 ELSE 200 END, CASE WHEN ended THEN 10 ELSE 0 END,
       CASE WHEN ended THEN 'completed' ELSE 'queued' END, CASE WHEN ended THEN 'all' END,
       CASE WHEN ended THEN now() END
FROM made;
UPDATE jobs SET runs_total = 1 WHERE state = 'queued' AND id IN (SELECT id FROM made WHERE n > 5100);
UPDATE jobs SET ready_from = now() + random() * interval '1 day'
WHERE state = 'queued' AND id IN (SELECT id FROM made WHERE n % 3 = 0);
INSERT INTO limits (scope, name, slots) VALUES ('repository', '', 3), ('client', 'client 1', 0);
INSERT INTO nodes (name, kind, capacity, hears_orders) VALUES ('agent', 'agent', 350, true);

INSERT INTO runs (id, job_id, client_id, position, queue, repository, branch, priority, max_parallel, state, outcome,
                  finished_at)
SELECT uuidv7((m.n - 6000) * interval '1 second'), m.id, m.client_id, p, 'code', 'https://a/' || p, 'b-' || m.n,
       m.n % 3, CASE WHEN m.n % 2 = 0 THEN 5 END, CASE WHEN ended THEN 'completed' ELSE 'queued' END,
       CASE WHEN ended THEN 'stored' END, CASE WHEN ended THEN now() END
FROM made m, generate_series(1, CASE WHEN m.ended THEN 10 WHEN m.n <= 5100 THEN 200 ELSE 1 END) p;

UPDATE runs SET state = 'dispatched', dispatched_at = now() - random() * interval '20 seconds'
WHERE id IN (SELECT id FROM runs WHERE state = 'queued' ORDER BY id LIMIT 100);
UPDATE runs SET state = 'running', lease_token = gen_random_uuid(), agent = 'agent', dispatched_at = now()
WHERE id IN (SELECT id FROM runs WHERE state = 'queued' ORDER BY id LIMIT 200);
UPDATE runs SET held_since = now()
WHERE id IN (SELECT id FROM runs WHERE state = 'queued' ORDER BY random() LIMIT 500);
UPDATE runs SET queue_deadline = now() + (random() - 0.1) * interval '1 hour'
WHERE id IN (SELECT id FROM runs WHERE state = 'queued' ORDER BY random() LIMIT 2000);
UPDATE runs SET cancel_requested_at = now() WHERE state = 'completed' AND position = 1;
UPDATE runs SET cancel_requested_at = now()
WHERE id IN (SELECT id FROM runs WHERE state = 'queued' ORDER BY id DESC LIMIT 20);

INSERT INTO leases (id, kind, token, holder, taken, expires_at)
SELECT id, 'run', lease_token, agent, random() < 0.9, now() + (random() - 0.1) * interval '8 seconds' FROM runs
WHERE state = 'running';

INSERT INTO changesets (id, run_id, job_id, client_id, repository, branch, base_sha, commit_sha, commit_author_name,
                        commit_author_email, commit_time, commit_message, patch, files, insertions, deletions, state,
                        published_at)
SELECT uuidv7(), id, job_id, client_id, repository, branch, 'a', 'b', 'n', 'e', now(), 'm', 'p', '[]', 1, 1,
       CASE WHEN random() < 0.005 THEN 'queued' ELSE 'stored' END, NULL
FROM runs WHERE state = 'completed';

INSERT INTO events (job_id, number, id, attempt, kind, data, created_at)
SELECT m.id, number, gen_random_uuid(), 0, 'log', '{}', now() FROM made m, generate_series(1, 20) number;
DELETE FROM event_batches;
INSERT INTO event_batches (job_ids, numbers, last_sequence)
SELECT array_fill(m.id, ARRAY[20]), ARRAY(SELECT generate_series(1, 20)), CASE WHEN m.n < 5080 THEN m.n * 20 END
FROM made m ORDER BY m.n;

INSERT INTO messages (run_id, number, attempt, role, body)
SELECT id, number, 1, 'user', 'x' FROM runs, generate_series(1, 2) number WHERE state = 'completed' AND position <= 5;

INSERT INTO work_items (id, client_id, kind, repository, number, job_id, answered_at)
SELECT gen_random_uuid(), client_id, 'issue', 'https://a/1', n, id, CASE WHEN n <= 10000 THEN now() END FROM made;
INSERT INTO webhook_deliveries (source, delivery, event, due_at)
SELECT 'github', n::text, 'push', CASE WHEN n > 10050 THEN now() END FROM made;

ANALYZE;
"""
SOME_JOBS = "SELECT array_agg(id) FROM (SELECT id FROM jobs WHERE state = 'queued' LIMIT 20) j"
WANTED: dict[str, tuple[str, dict[str, Any]]] = {
    "look": ("admitting", {"alive": SOON, "fleet": 100, "most": 50}),
    "dispatch": (
        "admitting",
        {
            "admissions": 0,
            "lock": 1,
            "places": ["agent"],
            "capacities": [1],
            "alive": SOON,
            "job_ids": SOME_JOBS,
            "counts": [3] * 20,
            "tags": [7] * 20,
            "agents": ["agent"] * 60,
            "tokens": [CLIENT] * 60,
            "lease": SOON,
            "most_work": 100,
            "event_ids": [CLIENT] * 60,
            "job_event_ids": [CLIENT] * 20,
            "sources": ["queued"],
            "clock_clients": [CLIENT],
            "clock_queues": ["code"],
            "clocks": [7],
        },
    ),
    "hide": ("admitting", {"ids": SOME_JOBS}),
    "ripen": ("admitting", {}),
    "held_repositories": ("admitting", {}),
    "held_runs": ("admitting", {"hashes": ["a" * 32] * 20, "rooms": [1] * 20}),
    "overdue": ("scheduling", {"grace": SOON}),
    "sleeping_over": ("messaging", {}),
    "idle": ("messaging", {}),
    "assign": ("outbox", {"assigned": 7, "most": 100}),
    "assigned": ("outbox", {"after": 7, "through": 90, "most": 100}),
    "published_range": ("reading", {"after": 7, "through": 90, "client_id": CLIENT, "most": 500}),
    "first_kept": ("reading", {}),
    "unclaimed": ("scheduling", {"overdue": SOON}),
    "expired_runs": ("scheduling", {"lease": SOON}),
    "take_expired": (
        "scheduling",
        {"ids": [CLIENT] * 200, "sources": ["running"], "lease": SOON, "lives": SOON, "connected_for": SOON},
    ),
    "requeue_unheard": ("scheduling", {"ids": [CLIENT] * 200}),
    "recall_orders": ("scheduling", {"ids": [CLIENT] * 128, "tokens": [CLIENT] * 128}),
    "skipped_for": ("running", {"run_id": CLIENT}),
    "claim_runs": ("running", {"run_ids": [CLIENT] * 128, "tokens": [CLIENT] * 128, "lease": SOON}),
    "renew": ("running", {"ids": [CLIENT] * 128, "tokens": [CLIENT] * 128, "lease": SOON}),
    "runs_to_cancel": ("scheduling", {"most": 200}),
    "recall": ("scheduling", {"ids": [CLIENT], "overdue": SOON, "sources": ["dispatched"]}),
    "stop_cancelled": ("publishing", {"run_ids": [CLIENT] * 200}),
    "runs": ("retrying", {"job_id": CLIENT}),
    "take_branches": ("retrying", {"client_id": CLIENT, "job_id": CLIENT, "run_ids": [CLIENT]}),
    "due": ("publishing", {"overdue": SOON}),
    "expired": ("publishing", {"lease": SOON}),
    "events_after": ("reading", {"job_id": CLIENT, "after": 3, "most": 500}),
    "jobs_page": ("reading", {**NO_FILTER, "client_id": CLIENT, "most": 51}),
    "jobs_page in a state": ("reading", {**NO_FILTER, "client_id": CLIENT, "most": 51, "states": ["queued"]}),
    "jobs_page of a repository": (
        "reading",
        {**NO_FILTER, "client_id": CLIENT, "most": 51, "repository": "https://a/1"},
    ),
    "jobs_page by metadata": (
        "reading",
        {**NO_FILTER, "client_id": CLIENT, "most": 51, "metadata": '{"session": "abc"}'},
    ),
    "queue_position": ("reading", {"id": CLIENT, "client_id": CLIENT}),
    "take": ("deliveries", {"most": 8, "again": SOON}),
    "ended": ("work_items", {"most": 20}),
    "item": ("work_items", {"client_id": CLIENT, "kind": "issue", "repository": "r", "number": 7, "subject": ""}),
    "count": ("work_items", {"client_id": CLIENT, "kind": "check", "repository": "r", "number": 7}),
    "open_changeset": ("work_items", {"forge": "github", "full_name": "a/b", "number": 7, "head_sha": None}),
    "runs_page": ("reading", {"job_id": CLIENT, "client_id": CLIENT, "after": -1, "most": 51}),
}

SINGLE_VALUES = {"skipped_for", "first_kept", "queue_position", "count"}
SINGLE_ROWS = {"look", "item", "open_changeset"}
COMMANDS = {"hide", "stop_cancelled", "recall_orders"}


class Explaining:
    """Stands in for a connection: keeps the plan of what it is asked instead of running it."""

    def __init__(self, connection: Connection, *, options: str = "FORMAT JSON", is_blind: bool = False) -> None:
        """``is_blind``: as a plan that is kept for all times does, it is not to know what is asked for."""
        self._connection = connection
        self._options = options
        self._is_blind = is_blind
        self.plan: dict[str, Any] = {}

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        if self._is_blind:
            sql = re.sub(r"\$\d+::(\w+(\[\])?)", r"(SELECT \g<0>)::\1", sql)
        (found,) = orjson.loads(await self._connection.fetchval(f"EXPLAIN ({self._options}) {sql}", *arguments))
        self.plan = found["Plan"]
        return []

    fetchval = fetchrow = execute = fetch


@pytest.fixture(scope="module")
async def full_database(servers: EmbeddedServers, template_database: str) -> AsyncIterator[str]:
    name = f"test_plans_{secrets.token_hex(4)}"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    connection = await asyncpg.connect(servers.postgres.database_url(name))
    await connection.execute(FILL, timeout=60)
    await connection.close()
    yield servers.postgres.database_url(name)
    await drop_database(servers, name)


def scans(plan: dict[str, Any]) -> Iterator[str]:
    """The growing tables that the plan reads from end to end."""
    if plan["Node Type"] == "Seq Scan" and plan["Relation Name"] in GROWING:
        yield plan["Relation Name"]
    for part in plan.get("Plans", []):
        yield from scans(part)


def asking(statements: Statements, name: str) -> Callable[..., Awaitable[Any]]:
    if name in SINGLE_VALUES:
        return statements.value
    if name in SINGLE_ROWS:
        return statements.row
    return statements.execute if name in COMMANDS else statements.rows


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("wanted", WANTED)
async def test_no_growing_table_is_read_whole(full_database: str, wanted: str, mode: str) -> None:
    file, parameters = WANTED[wanted]
    connection = await asyncpg.connect(full_database)
    try:
        await connection.execute(f"SET plan_cache_mode = {mode}")
        explaining = Explaining(connection)
        statements = Statements(SQL / f"{file}.sql")
        for name, value in parameters.items():
            if value is SOME_JOBS:
                parameters = parameters | {name: await connection.fetchval(SOME_JOBS)}
        await asking(statements, wanted)(explaining, wanted.split(maxsplit=1)[0], **parameters)
    finally:
        await connection.close()

    assert list(scans(explaining.plan)) == [], orjson.dumps(explaining.plan, option=orjson.OPT_INDENT_2).decode()


async def test_a_plan_from_when_all_tables_were_empty_reads_none_whole(database_url: str) -> None:
    """Plans are kept for as long as their connection."""
    read: dict[str, list[str]] = {}
    connection = await asyncpg.connect(database_url, server_settings=SERVER_SETTINGS)
    try:
        for wanted, (file, parameters) in WANTED.items():
            explaining = Explaining(connection)
            asked = {name: [] if value is SOME_JOBS else value for name, value in parameters.items()}
            await asking(Statements(SQL / f"{file}.sql"), wanted)(explaining, wanted.split(maxsplit=1)[0], **asked)
            read[wanted] = list(scans(explaining.plan))
    finally:
        await connection.close()

    assert {wanted: tables for wanted, tables in read.items() if tables} == {}


def rows_read(plan: dict[str, Any], table: str) -> float:
    """How many rows the plan, which was carried out, has read from ``table``; those that a filter dropped, too."""
    own = 0.0
    if plan.get("Relation Name") == table:
        own = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return own + sum(rows_read(part, table) for part in plan.get("Plans", []))


async def test_a_look_reads_no_more_than_the_free_slots_of_each_client(full_database: str) -> None:
    """Of 5,100 jobs that might be admitted, and none of a client that has no room. What code from before has dispatched
    takes no agent's place.
    """
    connection = await asyncpg.connect(full_database)
    try:
        await connection.execute("UPDATE nodes SET seen_at = now(), capacity = 210")
        explaining = Explaining(connection, options="ANALYZE, FORMAT JSON")
        parameters = {"alive": SOON, "fleet": 1_000, "most": 500}
        look: Callable[..., Awaitable[Any]] = Statements(SQL / "admitting.sql").row
        await look(explaining, "look", **parameters)
        free = 210 - await connection.fetchval("SELECT count(*) FROM runs WHERE state = 'running'")
    finally:
        await connection.close()

    assert free == 10
    flows = 20
    assert free * (flows - 1) <= rows_read(explaining.plan, "jobs") <= free * (flows - 1) + 2 * flows


BATCH = """WITH runs AS (
    UPDATE runs r SET state = 'running', lease_token = gen_random_uuid() FROM jobs j
    WHERE j.id = r.job_id AND r.id IN (
        SELECT r.id FROM runs r JOIN jobs j ON j.id = r.job_id WHERE r.state = 'queued' AND j.runs_total = 1 LIMIT 200)
    RETURNING r.id, r.job_id, r.lease_token
), jobs AS (
    UPDATE jobs SET state = 'running', runs_active = 1, last_event_number = 1000 WHERE id IN (SELECT job_id FROM runs)
) SELECT * FROM runs"""
MOST_ROWS_A_RUN = 100
"""That all steps of a plan pass on or throw away. Where a step goes through the whole batch for each run of it, as many
more as the batch has."""


async def test_what_a_batch_of_completions_takes_grows_with_it_and_no_faster(full_database: str) -> None:
    connection = await asyncpg.connect(full_database, server_settings=SERVER_SETTINGS)
    try:
        async with connection.transaction():
            runs = await connection.fetch(BATCH)
            explaining = Explaining(connection, options="ANALYZE, FORMAT JSON")
            ids, jobs = [run["id"] for run in runs], sorted({run["job_id"] for run in runs})
            complete: Callable[..., Awaitable[Any]] = Statements(SQL / "running.sql").rows
            await complete(
                explaining,
                "complete_runs",
                job_event_ids=[uuid7() for _ in jobs],
                run_ids=ids,
                tokens=[run["lease_token"] for run in runs],
                event_ids=[uuid7() for _ in runs],
                outcomes=["answered"] * len(runs),
                summaries=["done"] * len(runs),
                told_summaries=[None] * len(runs),
                read_through=[0] * len(runs),
            )
            await connection.execute("ROLLBACK; BEGIN")
    finally:
        await connection.close()

    assert len({run["job_id"] for run in runs}) == 200
    words = orjson.dumps(explaining.plan, option=orjson.OPT_INDENT_2).decode()
    assert rows_passed(explaining.plan) < MOST_ROWS_A_RUN * len(runs), words


NEXT = """SELECT j.id FROM jobs j JOIN runs r ON r.job_id = j.id
WHERE j.runs_total = 1 AND r.state = 'queued' AND r.held_since IS NULL AND r.cancel_requested_at IS NULL LIMIT 128"""


async def test_what_it_takes_to_give_runs_away_and_take_them_up_grows_with_them_and_no_faster(
    full_database: str,
) -> None:
    """As many as are admitted at once, each of another job and on another repository."""
    connection = await asyncpg.connect(full_database, server_settings=SERVER_SETTINGS)
    try:
        async with connection.transaction():
            jobs = [row["id"] for row in await connection.fetch(NEXT)]
            await connection.execute("UPDATE jobs SET last_event_number = 1000 WHERE id = ANY($1::uuid[])", jobs)
            await connection.execute(
                "UPDATE runs SET repository = 'https://b/' || id WHERE job_id = ANY($1::uuid[])", jobs
            )
            tokens = [uuid4() for _ in jobs]
            giving = Explaining(connection, options="ANALYZE, FORMAT JSON")
            dispatch: Callable[..., Awaitable[Any]] = Statements(SQL / "admitting.sql").rows
            await dispatch(
                giving,
                "dispatch",
                admissions=await connection.fetchval("SELECT count FROM admissions"),
                lock=1,
                places=[],
                capacities=[],
                alive=SOON,
                job_ids=jobs,
                counts=[1] * len(jobs),
                tags=[7] * len(jobs),
                sources=["queued"],
                agents=["agent"] * len(jobs),
                tokens=tokens,
                lease=SOON,
                most_work=100,
                event_ids=[uuid7() for _ in jobs],
                job_event_ids=[uuid7() for _ in jobs],
                clock_queues=["code"],
                clock_clients=[CLIENT],
                clocks=[7],
            )
            given = await connection.fetch(
                "SELECT id, lease_token FROM runs WHERE lease_token = ANY($1::uuid[])", tokens
            )
            taking = Explaining(connection, options="ANALYZE, FORMAT JSON")
            claim: Callable[..., Awaitable[Any]] = Statements(SQL / "running.sql").rows
            await claim(
                taking,
                "claim_runs",
                run_ids=[row["id"] for row in given],
                tokens=[row["lease_token"] for row in given],
                lease=SOON,
            )
            await connection.execute("ROLLBACK; BEGIN")
    finally:
        await connection.close()

    assert (len(jobs), len(given)) == (128, 128)
    for step in (giving, taking):
        words = orjson.dumps(step.plan, option=orjson.OPT_INDENT_2).decode()
        assert len(given) < rows_passed(step.plan) < MOST_ROWS_A_RUN * len(given), words


ENDED = """WITH ended AS (
    INSERT INTO jobs (id, client_id, kind, prompt, options, runs_total, runs_completed, state, outcome, finished_at)
    SELECT gen_random_uuid(), $1, 'code', 'x', '{}', 1, 1, 'completed', 'all', now() FROM generate_series(1, 5000)
    RETURNING id
) INSERT INTO runs (id, job_id, client_id, position, queue, repository, branch, priority, state, outcome, finished_at)
SELECT gen_random_uuid(), id, $1, 0, 'code', 'https://a/' || id, 'b', 0, 'completed', 'stored', now() FROM ended"""
"""So many that nobody would read them all for a batch."""


@pytest.fixture
async def new_domain(servers: EmbeddedServers, template_database: str) -> AsyncIterator[Domain]:
    """On a database that nobody has had before."""
    async with copy_of(servers, template_database) as url:
        database = Database(url, size=4, name="test")
        domain = Domain(database)
        domain.client = await domain.new_client("new")
        yield domain
        await database.close()


@pytest.mark.parametrize("statistics", ["none", "of ended jobs"])
async def test_whatever_statistics_there_are_a_batch_takes_no_longer_for_each_of_its_runs(
    new_domain: Domain, statistics: str
) -> None:
    """As on the first day, and in words that leave the plan for later batches to be made without this one."""
    domain = new_domain
    if statistics == "of ended jobs":  # none of them has a token any more: it seems that nothing ever matches one
        await domain.execute(ENDED, domain.client.id)
        await domain.execute("ANALYZE")
    jobs = await asyncio.gather(*(domain.submit() for _ in range(300)))
    await domain.execute("UPDATE runs SET branch = id::text")
    plans: list[dict[str, Any]] = []

    class Explained(Statements):
        async def rows(self, connection: Connection, name: str, /, **parameters: Any) -> list[Record]:
            explaining: Any = Explaining(connection, options="ANALYZE, FORMAT JSON", is_blind=True)
            await super().rows(explaining, name, **parameters)
            plans.append(explaining.plan)
            return []

    admitting, running = Explained(SQL / "admitting.sql"), Explained(SQL / "running.sql")
    async with domain.database.connection() as connection:
        await connection.execute(ENDED, domain.client.id)
        await admitting.rows(
            connection,
            "dispatch",
            admissions=await connection.fetchval("SELECT count FROM admissions"),
            lock=1,
            places=[],
            capacities=[],
            alive=SOON,
            job_ids=jobs[:200],
            counts=[1] * 200,
            tags=[7] * 200,
            sources=["queued"],
            agents=["agent"] * 200,
            tokens=[uuid4() for _ in range(200)],
            lease=SOON,
            most_work=100,
            event_ids=[uuid7() for _ in range(200)],
            job_event_ids=[uuid7() for _ in range(200)],
            clock_queues=[],
            clock_clients=[],
            clocks=[],
        )
        given = await connection.fetch("SELECT id, job_id, lease_token FROM runs WHERE state = 'running' ORDER BY id")
        ids, tokens = [row["id"] for row in given], [row["lease_token"] for row in given]
        await running.rows(connection, "claim_runs", run_ids=ids, tokens=tokens, lease=SOON)
        await running.rows(
            connection,
            "complete_runs",
            job_event_ids=[uuid7() for _ in given],
            run_ids=ids,
            tokens=tokens,
            event_ids=[uuid7() for _ in given],
            outcomes=["answered"] * len(given),
            summaries=["done"] * len(given),
            told_summaries=[None] * len(given),
            read_through=[0] * len(given),
        )
    assert len(given) == 200
    assert len(await domain.rows("SELECT FROM runs WHERE outcome = 'answered'")) == 200
    for plan in plans:
        words = orjson.dumps(plan, option=orjson.OPT_INDENT_2).decode()
        assert len(given) < rows_passed(plan) < MOST_ROWS_A_RUN * len(given), words


def rows_passed(plan: dict[str, Any]) -> float:
    """How many rows all steps of the plan, which was carried out, have passed on or thrown away."""
    removed = sum(plan.get(f"Rows Removed by {by}", 0) for by in ("Filter", "Join Filter", "Index Recheck"))
    own: float = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return own + sum(rows_passed(part) for part in plan.get("Plans", []))
