"""The event log as its one publisher sees it: what NATS does not have yet, in one order over all jobs."""

from __future__ import annotations

from collections.abc import Sequence

from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Database, Record, Statements

_STATEMENTS = Statements(SQL / "outbox.sql")
# Chosen once, at random; whoever holds this advisory lock is the one that publishes.
_PUBLISHER_LOCK = 2_094_617_558


class Outbox:
    """The one publisher's side: gives events their sequences, and remembers which of them NATS has.

    A sequence is committed before its event is sent, so that an event that is sent again after a crash has the same.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def next(self, confirmed: int, *, most: int) -> Sequence[Record] | None:
        """Remember that NATS has all up to ``confirmed``, and return what is to be sent next, in order.

        None: another scheduler publishes just now. Of each event: its id, its job's and run's, its number, attempt,
        kind, data (ids and JSON as text), time, its client's id, its sequence. They are left as rows: there are many,
        and an object of each would take as long as all else.
        """

        async def work(connection: Connection) -> Sequence[Record] | None:
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
            return rows

        return await self._database.in_transaction(work)
