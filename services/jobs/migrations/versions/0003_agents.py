"""Make room for what agents are told, what they may spend and did spend, and what they keep beside the worktree.

Everything is done at once: new tables, and columns that are null or have a constant default.
"""

from services.jobs.migrations.run_sql import run_sql_file

revision = "0003"
down_revision = "0002_indexes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0003_agents.sql")
