"""The event log as its one publisher sees it: what NATS does not have yet, in one order over all jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson

from services.contracts import subjects
from services.jobs.eventlog import encode_event, kind_of
from services.jobs.unit import SQL
from services.runtime.nats_client import Outgoing
from services.runtime.postgres import Connection, Database, Record, Statements

_STATEMENTS = Statements(SQL / "outbox.sql")
# Chosen once, at random; whoever holds this advisory lock is the one that publishes.
_PUBLISHER_LOCK = 2_094_617_558


class Unpublished:
    """Durable events that are to be sent next, in order, each a message when its turn comes. There are so many that an
    object of each in between would take long.
    """

    def __init__(self, rows: Sequence[Record]) -> None:
        """``rows``: as the statement `assigned` has them."""
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def messages(self, *, most_bytes: int) -> Iterator[Outgoing]:
        """``most_bytes``: of the data of each, as ``encode_event`` has it."""
        return (_message(row, most_bytes) for row in self._rows)


class Outbox:
    """The one publisher's side: gives events their sequences, and remembers which of them NATS has.

    A sequence is committed before its event is sent, so that an event that is sent again after a crash has the same.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def next(self, confirmed: int, *, most: int) -> Unpublished | None:
        """Remember that NATS has all up to ``confirmed``, and return what is to be sent next, in order.

        None: another scheduler publishes just now.
        """

        async def work(connection: Connection) -> Unpublished | None:
            cursor = await _STATEMENTS.row(connection, "cursor", lock=_PUBLISHER_LOCK)
            if cursor is None:
                return None
            assigned = cursor["assigned"]
            sent = min(max(confirmed, cursor["sent"]), assigned)
            rows: Sequence[Record] = []
            while not rows:
                if sent == assigned:  # else this process, or another, ended before it had sent all of it
                    given = await _STATEMENTS.rows(connection, "assign", assigned=assigned, most=most)
                    if not given:
                        break
                    assigned = given[-1]["last_sequence"]
                through = min(sent + most, assigned)
                rows = await _STATEMENTS.rows(connection, "assigned", after=sent, through=through)
                sent = sent if rows else through  # somebody has deleted them
            if (assigned, sent) != (cursor["assigned"], cursor["sent"]):
                await _STATEMENTS.execute(connection, "move_cursor", assigned=assigned, sent=sent)
            return Unpublished(rows)

        return await self._database.in_transaction(work)


def _message(row: Record, most_bytes: int) -> Outgoing:
    # By place: to look each column up by its name takes longer than to encode them.
    event_id, job_id, run_id, number, attempt, kind_word, data, created_at, client_id, sequence = row
    run_id, kind = run_id or "", kind_of(kind_word)
    encoded = encode_event(
        event_id=event_id,
        job_id=job_id,
        run_id=run_id,
        number=number,
        attempt=attempt,
        kind=kind,
        time=created_at,
        data=orjson.loads(data),
        most_bytes=most_bytes,
    )
    headers = {subjects.SEQUENCE_HEADER: str(sequence), subjects.CLIENT_HEADER: str(client_id)}
    return Outgoing(subjects.event_of_uuids(job_id, run_id, kind), encoded, event_id, headers)
