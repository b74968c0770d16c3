"""Make the index by which jobs are found through their metadata, beside writers; what is cut short is made again."""

from alembic import op

from services.jobs.migrations.run_sql import make_index

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # Most jobs have none, and cost nothing here.
        make_index("jobs_by_metadata", "jobs USING gin (metadata jsonb_path_ops) WHERE metadata <> '{}'")
