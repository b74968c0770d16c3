"""Make room for what replies used that came to nothing, and for a line before a model service that is short.

Everything is done at once: a new table, and a column with a constant default.
"""

from services.jobs.migrations.run_sql import run_sql_file

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0009_void_usage.sql")
