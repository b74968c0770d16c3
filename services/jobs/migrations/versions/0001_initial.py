"""Make the first schema; the SQL stands beside this file."""

from services.jobs.migrations.run_sql import run_sql_file

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0001_initial.sql")
