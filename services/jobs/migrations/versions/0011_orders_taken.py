"""Tell leases that were taken up from those only granted, and agents that hear of such from those that do not.

Everything is done at once: columns with a constant default.
"""

from services.jobs.migrations.run_sql import run_sql_file

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0011_orders_taken.sql")
