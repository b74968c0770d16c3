"""Keep the order of publication for events that were told together.

Everything is done in one transaction, which looks at those events alone that wait to be published.
"""

from services.jobs.migrations.run_sql import run_sql_file

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0012_event_batches.sql")
