"""What lies in the tables beside the jobs that are measured: a long queue that cannot start now, and a long history."""

from __future__ import annotations

import asyncpg

_SECONDS = 120
_CLIENT = "INSERT INTO clients (id, name) VALUES (uuidv7(), 'background')"
# It may start nothing: its jobs stand before admission at every look, at a lower priority, and never get a slot.
_LIMIT = "INSERT INTO limits (scope, name, slots) VALUES ('client', 'background', 0)"
# The other half is not due for a week. Ids are of yesterday, so that those of the measured jobs are above them.
_QUEUED = """
WITH made AS (
    INSERT INTO jobs (id, client_id, kind, queue, prompt, options, priority, not_before, ready_from, runs_total,
                      last_event_number)
    SELECT uuidv7(interval '-1 day'), c.id, 'task', 'task', 'background', '{}', -10, due.at, due.at, 1, 1
    FROM clients c CROSS JOIN generate_series(1, $1::int) n
    CROSS JOIN LATERAL (SELECT CASE WHEN n % 2 = 0 THEN now() + interval '7 days' END AS at) due
    WHERE c.name = 'background'
    RETURNING id, client_id, priority, not_before
)
INSERT INTO runs (id, job_id, client_id, position, queue, branch, priority, not_before)
SELECT uuidv7(interval '-1 day'), id, client_id, 0, 'task', 'background', priority, not_before FROM made"""
_RUNS_A_JOB = 100
_FINISHED = """
WITH made AS (
    INSERT INTO jobs (id, client_id, kind, queue, prompt, options, runs_total, runs_started, runs_completed, state,
                      outcome, last_event_number, started_at, finished_at)
    SELECT uuidv7(interval '-2 days'), c.id, 'task', 'task', 'background', '{}', $2, $2, $2, 'completed', 'all', 1,
           now(), now()
    FROM clients c CROSS JOIN generate_series(1, $1::int / $2::int) WHERE c.name = 'background'
    RETURNING id, client_id
)
INSERT INTO runs (id, job_id, client_id, position, queue, branch, priority, state, outcome, summary, attempt, dispatch,
                  dispatched_at, started_at, finished_at)
SELECT uuidv7(interval '-2 days'), id, client_id, position, 'task', 'background', 0, 'completed', 'answered', 'Done.',
       1, 1, now(), now(), now()
FROM made CROSS JOIN generate_series(0, $2::int - 1) position"""


class Background:
    def __init__(self, database_url: str) -> None:
        self._url = database_url

    async def add(self, *, queued: int, finished: int) -> None:
        """Add ``queued`` jobs of one run, half not due and half that may not start, and completed runs by the hundred.

        Raises TimeoutError where one of the statements takes too long.
        """
        connection = await asyncpg.connect(self._url, command_timeout=_SECONDS)
        try:
            await connection.execute(_CLIENT)
            await connection.execute(_LIMIT)
            await connection.execute(_FINISHED, finished, _RUNS_A_JOB)
            await connection.execute(_QUEUED, queued)
            # What autovacuum would do soon, and in the midst of the measures.
            await connection.execute("VACUUM (ANALYZE) jobs")
            await connection.execute("VACUUM (ANALYZE) runs")
        finally:
            await connection.close()
