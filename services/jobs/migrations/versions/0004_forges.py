"""Make room for what forges know of changesets, for repositories that clients keep, and for how checkouts are made.

Everything is done at once: new tables, columns that are null or have a constant default, and a wider set of outcomes.
"""

from services.jobs.migrations.run_sql import run_sql_file

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0004_forges.sql")
