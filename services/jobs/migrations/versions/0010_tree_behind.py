"""Remember of a stored tree that it is behind what was changed last.

Everything is done at once: a column with a constant default.
"""

from services.jobs.migrations.run_sql import run_sql_file

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0010_tree_behind.sql")
