"""Who is measured: ours, the job queues beside it and the floor. Which modules play their roles, what to ask tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Kind:
    """``submitter``, ``worker``: modules that play those roles.

    ``left``: SQL, whether a job that was submitted after $1 (epoch seconds) is not finished. ``span``: SQL, epoch
    seconds of the first start and of the last end among those, and how many have ended.
    """

    name: str
    submitter: str
    worker: str
    left: str
    span: str
    uses: tuple[str, ...] = ("postgres",)
    """The stack's processes that do its work."""
    installs: bool = True
    slow: bool = False
    """Measured in the first round alone, which is long enough."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """For its processes' environment."""


# The least id that version 7 could have made then: the range scan stays small however many runs there are.
_SINCE = "id >= (lpad(to_hex(floor($1::float8 * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid"
# Whoever asks whether something is left, ten times a second, is not to read all that was done by then: the newest is
# done last.
_NEWEST = "ORDER BY id DESC LIMIT 1"
OURS = Kind(
    name="quarterdeck",
    submitter="tests.bench.http_load",
    worker="tests.bench.noop_agent",
    left=f"SELECT coalesce((SELECT true FROM runs WHERE {_SINCE} AND state <> 'completed' {_NEWEST}), false)",
    span=f"""SELECT extract(epoch FROM min(started_at))::float8, extract(epoch FROM max(finished_at))::float8, count(*)
        FROM runs WHERE {_SINCE} AND state = 'completed'""",
    uses=("gateway", "scheduler", "nats", "postgres"),
    installs=False,
)
PGQUEUER = Kind(
    name="pgqueuer",
    submitter="tests.bench.peers.pgqueuer_noop",
    worker="tests.bench.peers.pgqueuer_noop",
    left="SELECT EXISTS (SELECT FROM pgqueuer WHERE created >= to_timestamp($1))",
    span="""SELECT extract(epoch FROM min(created) FILTER (WHERE status = 'picked'))::float8,
        extract(epoch FROM max(created) FILTER (WHERE status = 'successful'))::float8,
        count(*) FILTER (WHERE status = 'successful') FROM pgqueuer_log WHERE created >= to_timestamp($1)""",
    variables={"BENCH_BATCH": "10"},
)
PGQUEUER_TUNED = replace(PGQUEUER, name="pgqueuer-batch-50", variables={"BENCH_BATCH": "50"})
PROCRASTINATE = Kind(
    name="procrastinate",
    submitter="tests.bench.peers.procrastinate_noop",
    worker="tests.bench.peers.procrastinate_noop",
    left="""SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))
        AND $1::float8 IS NOT NULL""",
    span="""SELECT extract(epoch FROM min(at) FILTER (WHERE type = 'started'))::float8,
        extract(epoch FROM max(at) FILTER (WHERE type = 'succeeded'))::float8,
        count(*) FILTER (WHERE type = 'succeeded') FROM procrastinate_events WHERE at >= to_timestamp($1)""",
    slow=True,
)
FLOOR = Kind(
    name="floor",
    submitter="tests.bench.peers.floor_noop",
    worker="tests.bench.peers.floor_noop",
    left=f"SELECT coalesce((SELECT true FROM floor WHERE {_SINCE} AND state <> 'done' {_NEWEST}), false)",
    span=f"""SELECT extract(epoch FROM min(started_at))::float8, extract(epoch FROM max(finished_at))::float8, count(*)
        FROM floor WHERE {_SINCE} AND state = 'done'""",
    uses=("nats", "postgres"),
)
PEERS = (PGQUEUER, PROCRASTINATE, FLOOR)
"""As they come: pgqueuer with its own batch size."""
ALL = (PGQUEUER, PGQUEUER_TUNED, PROCRASTINATE, FLOOR, OURS)
