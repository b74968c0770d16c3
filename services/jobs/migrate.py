"""`python -m services.jobs.migrate`: bring the schema of DATABASE_URL up to date; safe to run twice, or at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

from alembic import command
from alembic.config import Config
from pydantic import Field
from pydantic_settings import BaseSettings

from services.runtime.settings import DatabaseUrl, load, refuse

MIGRATIONS = Path(__file__).parent / "migrations"


class MigrateSettings(BaseSettings):
    database_url: Annotated[DatabaseUrl, Field(validation_alias="DATABASE_URL")]


def migrate(database_url: str, *, to: str = "head") -> None:
    """Apply what is missing up to the revision ``to``, each migration at most once, one migrator at a time."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    parts = urlsplit(database_url)
    config.attributes["url"] = urlunsplit(parts._replace(scheme="postgresql+asyncpg"))
    command.upgrade(config, to)


def main() -> None:
    settings = load(MigrateSettings)
    try:
        migrate(settings.database_url.get_secret_value())
    except OSError as error:
        refuse("DATABASE_URL", f"Postgres cannot be reached: {error}")


if __name__ == "__main__":
    main()
