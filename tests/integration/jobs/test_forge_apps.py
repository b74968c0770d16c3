"""Apps that were set up, with sealed secrets, and where they are installed, in whatever order that is told."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet

from services.jobs.errors import SecretsError
from services.jobs.forge_apps import AppCredentials, ForgeApps, Installation, NewApp
from services.runtime.postgres import Database
from services.runtime.sealing import Sealer
from tests.integration.jobs.domain import Domain

KEY = Fernet.generate_key().decode()
NEW = NewApp(
    app_id=41,
    slug="quarterdeck-of-acme",
    name="Quarterdeck of Acme",
    owner="acme",
    url="https://github.com/apps/quarterdeck-of-acme",
    private_key="-----BEGIN a private key-----",
    client_secret="a client secret",
    webhook_secret="a webhook secret",
)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(minute: int) -> datetime:
    return NOON + timedelta(minutes=minute)


@pytest.fixture
async def apps(domain: Domain) -> ForgeApps:
    for table in ("forge_apps", "forge_installations"):
        await domain.execute(f"DELETE FROM {table}")
    return ForgeApps(domain.database, Sealer(KEY))


async def test_no_app_is_set_up(apps: ForgeApps) -> None:
    assert [await apps.current(), await apps.credentials(), await apps.webhook_secret()] == [None, None, None]


async def test_an_app_is_kept_with_its_secrets_sealed(apps: ForgeApps, domain: Domain) -> None:
    await apps.store(NEW)

    current = await apps.current()
    assert current is not None
    told = (current.app_id, current.slug, current.name, current.owner, current.url)
    assert told == (41, NEW.slug, NEW.name, NEW.owner, NEW.url)
    assert await apps.credentials() == AppCredentials(41, NEW.private_key)
    assert await apps.webhook_secret() == NEW.webhook_secret
    (row,) = await domain.rows("SELECT a::text AS line, sealed, webhook_sealed FROM forge_apps a")
    stored = row["line"].encode() + row["sealed"] + row["webhook_sealed"]
    for secret in (NEW.private_key, NEW.client_secret, NEW.webhook_secret or ""):
        assert secret.encode() not in stored
        assert secret not in repr([NEW, current, await apps.credentials()])


async def test_the_app_that_was_stored_last_is_the_current_one(apps: ForgeApps) -> None:
    await apps.store(NEW)
    first = await apps.current()
    await apps.store(replace(NEW, app_id=40, private_key="another", webhook_secret=None))
    assert await apps.credentials() == AppCredentials(40, "another")
    assert await apps.webhook_secret() is None

    await apps.store(replace(NEW, private_key="a new one"))
    again = await apps.current()
    assert await apps.credentials() == AppCredentials(41, "a new one")
    assert first is not None
    assert again is not None
    assert again.created_at > first.created_at


async def test_without_the_key_nothing_is_stored_or_opened_and_the_words_say_so(
    apps: ForgeApps, database: Database
) -> None:
    keyless, other = ForgeApps(database, Sealer(None)), ForgeApps(database, Sealer(Fernet.generate_key().decode()))
    with pytest.raises(SecretsError, match="QUARTERDECK_SECRET_KEY is not set"):
        keyless.require_key()
    with pytest.raises(SecretsError, match="QUARTERDECK_SECRET_KEY is not set"):
        await keyless.store(NEW)
    assert await apps.current() is None

    await apps.store(NEW)
    assert await keyless.current() == await apps.current()
    with pytest.raises(SecretsError, match=r"the GitHub App that was set up here: .* is not set"):
        await keyless.credentials()
    for opening in (other.credentials, other.webhook_secret):
        with pytest.raises(SecretsError, match="put the old key back"):
            await opening()


async def test_one_secret_cannot_stand_in_another_s_place(apps: ForgeApps, domain: Domain) -> None:
    await apps.store(NEW)
    await domain.execute("UPDATE forge_apps SET sealed = webhook_sealed, webhook_sealed = sealed")
    for opening in (apps.credentials, apps.webhook_secret):
        with pytest.raises(SecretsError, match="belongs to somebody else"):
            await opening()


async def test_an_installation_through_its_life(apps: ForgeApps) -> None:
    await apps.record_installation(7, app_id=41, account="acme", repositories=["acme/b", "acme/a"], at=at(0))
    for _ in range(2):  # each delivery may come again
        await apps.change_repositories(7, ["acme/c"], ["acme/b"], at=at(1))
    assert await apps.installations() == [
        Installation(7, 41, "acme", ("acme/a", "acme/c"), has_all=False, suspended_at=None, updated_at=at(1))
    ]
    await apps.change_repositories(7, [], [], has_all=True, at=at(2))
    await apps.suspend(7, at=at(3))
    (suspended,) = await apps.installations()
    assert (suspended.has_all, suspended.suspended_at) == (True, at(3))
    await apps.unsuspend(7, at=at(4))
    assert [each.suspended_at for each in await apps.installations()] == [None]
    for _ in range(2):
        await apps.remove(7)
    assert await apps.installations() == []


async def test_what_is_told_late_changes_nothing_that_is_newer(apps: ForgeApps) -> None:
    await apps.record_installation(7, app_id=41, account="acme", repositories=["acme/a"], at=at(0))
    await apps.change_repositories(7, ["acme/b"], ["acme/a"], at=at(1))
    await apps.suspend(7, at=at(4))
    await apps.unsuspend(7, at=at(3))
    await apps.record_installation(7, app_id=41, account="acme", repositories=["acme/a"], at=at(0))
    (found,) = await apps.installations()
    assert (found.repositories, found.suspended_at, found.updated_at) == (("acme/b",), at(4), at(4))
    await apps.unsuspend(7, at=at(5))
    await apps.suspend(7, at=at(4))
    assert [each.suspended_at for each in await apps.installations()] == [None]


async def test_what_follows_an_installation_may_be_told_before_it(apps: ForgeApps) -> None:
    await apps.change_repositories(7, ["acme/b"], [], at=at(2))
    await apps.suspend(7, at=at(3))
    await apps.remove(8, at=at(1))
    assert await apps.installations() == []

    for number in (7, 8):
        await apps.record_installation(number, app_id=41, account="acme", repositories=["acme/a"], at=at(0))
    (found,) = await apps.installations()
    assert (found.installation_id, found.repositories, found.suspended_at) == (7, ("acme/a", "acme/b"), at(3))


async def test_without_a_time_what_is_told_is_so_now(apps: ForgeApps) -> None:
    await apps.record_installation(7, app_id=41, account="acme", has_all=True)
    await apps.record_installation(7, app_id=41, account="acme", repositories=["acme/a"])
    await apps.suspend(7)
    await apps.unsuspend(7)
    (found,) = await apps.installations()
    assert (found.has_all, found.repositories, found.suspended_at) == (False, ("acme/a",), None)
