"""Make the indexes that forges' changesets are found by, beside writers; a try that is cut short is made again.

A migration of its own: tables that are there already could not be made a second time.
"""

from alembic import op

from services.jobs.migrations.run_sql import make_index

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INDEXES = {
    "changesets_to_observe": "changesets (observe_at) WHERE observe_at IS NOT NULL",
    "changesets_open": "changesets (client_id, repository_key(repository)) WHERE state = 'open'",
    "changesets_by_number": "changesets (number) WHERE forge IS NOT NULL",
    "changesets_by_branch": "changesets (branch)",
    "changesets_by_head": "changesets (head_sha) WHERE forge IS NOT NULL",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # What was published before was so on the only forge that there was.
        op.execute("UPDATE changesets SET forge = 'local' WHERE forge IS NULL AND published_at IS NOT NULL")
        for name, definition in INDEXES.items():
            make_index(name, definition)
