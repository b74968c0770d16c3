"""Make room for what forges know of changesets, for repositories that clients keep, and for how checkouts are made.

Columns and tables in one transaction, since each is done at once; then the indexes, which nobody has to wait for.
"""

from alembic import op

from services.jobs.migrations.run_sql import make_index, run_sql_file

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INDEXES = {
    "changesets_to_observe": "changesets (observe_at) WHERE observe_at IS NOT NULL",
    "changesets_open": "changesets (client_id, md5(repository)) WHERE state = 'open'",
    "changesets_by_number": "changesets (number) WHERE forge IS NOT NULL",
    "changesets_by_branch": "changesets (branch)",
    "changesets_by_head": "changesets (head_sha) WHERE forge IS NOT NULL",
}


def upgrade() -> None:
    run_sql_file("0004_forges.sql")
    with op.get_context().autocommit_block():
        # What was published before was so on the only forge that there was.
        op.execute("UPDATE changesets SET forge = 'local' WHERE forge IS NULL AND published_at IS NOT NULL")
        for name, definition in INDEXES.items():
            make_index(name, definition)
