"""Make room for what the published APIs and GitHub's webhooks need: customers, Apps, deliveries, work items, comments.

Everything is done at once: new tables, and columns that are null or have a constant default.
"""

from services.jobs.migrations.run_sql import run_sql_file

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0006_contracts.sql")
