"""Leases are renewed and dropped by their tokens: no statement looks for a holder's, and each claim wrote to its index.

And the cursor of the event log is put where it belongs: two schedulers that published at once could set it back.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS leases_by_holder")
        op.execute(
            "UPDATE event_cursor SET assigned = greatest(assigned, (SELECT coalesce(max(sequence), 0) FROM events))"
        )
