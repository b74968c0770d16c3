"""Make room for fair admission, limits, retries, conversations and the order over all events.

Columns and tables in one transaction, since each is done at once.
"""

from services.jobs.migrations.run_sql import run_sql_file

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0002_scheduling.sql")
