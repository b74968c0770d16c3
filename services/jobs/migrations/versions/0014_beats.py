"""Number the heartbeats of a node.

Everything is done at once: a column with a constant default.
"""

from services.jobs.migrations.run_sql import run_sql_file

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0014_beats.sql")
