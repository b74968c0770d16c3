"""Count admissions, so that one can tell whether another came before it.

Everything is done at once: a table of one row.
"""

from services.jobs.migrations.run_sql import run_sql_file

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0013_admissions.sql")
