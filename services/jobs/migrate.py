"""`python -m services.jobs.migrate`: bring the schema of DATABASE_URL up to date; safe to run twice, or at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

from alembic import command
from alembic.config import Config
from pydantic import Field
from pydantic_settings import BaseSettings
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from services.runtime.settings import DatabaseUrl, load, refuse

_TRIES = 20
_CONTENDED = ("40P01", "55P03")
"""SQLSTATE of deadlock_detected and lock_not_available."""
MIGRATIONS = Path(__file__).parent / "migrations"


class MigrateSettings(BaseSettings):
    database_url: Annotated[DatabaseUrl, Field(validation_alias="DATABASE_URL")]


def migrate(database_url: str, *, to: str = "head") -> None:
    """Apply what is missing up to the revision ``to``, each migration at most once, one migrator at a time.

    A migration that Postgres undoes in favour of those who are writing is made again.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    parts = urlsplit(database_url)
    config.attributes["url"] = urlunsplit(parts._replace(scheme="postgresql+asyncpg"))
    for attempt in Retrying(
        retry=retry_if_exception(_lost_to_writers),
        stop=stop_after_attempt(_TRIES),
        wait=wait_random_exponential(multiplier=0.1, max=5),
        reraise=True,
    ):
        with attempt:
            command.upgrade(config, to)


def _lost_to_writers(error: BaseException) -> bool:
    """Whether it was the victim of a deadlock, or waited for a lock for too long."""
    found: BaseException | None = error
    while found is not None:
        if getattr(found, "sqlstate", None) in _CONTENDED:
            return True
        found = found.__cause__ or getattr(found, "orig", None)
    return False


def main() -> None:
    settings = load(MigrateSettings)
    try:
        migrate(settings.database_url.get_secret_value())
    except OSError as error:
        refuse("DATABASE_URL", f"Postgres cannot be reached: {error}")


if __name__ == "__main__":
    main()
