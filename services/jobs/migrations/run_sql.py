"""Run a migration's `.sql` file as one script, which prepared statements cannot."""

from __future__ import annotations

from pathlib import Path

from alembic import op
from sqlalchemy.util import await_only

VERSIONS = Path(__file__).parent / "versions"


def run_sql_file(name: str) -> None:
    """Run all statements of ``versions/name`` on the migration's own connection and transaction."""
    op.execute("SELECT")  # begins the migration's transaction, which the driver by itself would not
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    await_only(connection.execute((VERSIONS / name).read_text()))


def make_index(name: str, definition: str, *, unique: bool = False) -> None:
    """Outside of a transaction, while everybody goes on writing. Safe to repeat."""
    # One that was broken off is left behind invalid, and would be taken for the real one.
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute(f"CREATE {'UNIQUE ' * unique}INDEX CONCURRENTLY {name} ON {definition}")
