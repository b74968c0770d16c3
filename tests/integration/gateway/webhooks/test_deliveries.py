"""Deliveries as they are kept and taken, what they tell of installations, and which secrets they may be signed with."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from services.gateway.webhooks.secrets import WebhookSecrets
from services.jobs.deliveries import Deliveries, Delivery
from services.jobs.forge_apps import ForgeApps, NewApp
from services.jobs.work_items import WorkItems
from services.runtime.postgres import Database
from services.runtime.sealing import Sealer
from services.scheduler.answering import Answering
from tests.integration.gateway.webhooks.hooking import Hooked, issue_payload

MINUTE = timedelta(minutes=1)
APP = NewApp(77, "deck", "Deck", "ada", "https://f/deck", "a key", "a secret", webhook_secret="of the App")


async def test_what_is_due_is_taken_by_one_and_by_another_when_that_one_does_not_end_it(database: Database) -> None:
    deliveries = Deliveries(database)
    for number in range(20):
        assert await deliveries.keep("worker", f"{number}", "issues", b"{}")
    assert not await deliveries.keep("worker", "1", "issues", b"{}")
    assert await deliveries.keep("codebot", "1", "issues", None)

    batches = await asyncio.gather(*(deliveries.take(most=8, again=MINUTE) for _ in range(4)))
    taken = [delivery for batch in batches for delivery in batch]
    assert (len(taken), len({delivery.id for delivery in taken})) == (20, 20)
    assert max(map(len, batches)) <= 8
    async with database.connection() as connection:
        await connection.execute("UPDATE webhook_deliveries SET due_at = now() WHERE delivery = '3'")
    (again,) = await deliveries.take(most=8, again=MINUTE)
    assert (again.id, again.attempt) == ("3", 2)

    # Whoever took it before has no say any more.
    await deliveries.done(Delivery("worker", "3", "issues", b"", attempt=1))
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT payload FROM webhook_deliveries WHERE delivery = '3'") == b"{}"
    assert (await deliveries.totals()).count == 21
    totals = await deliveries.totals("codebot")
    assert (totals.count, totals.last_received_at is not None) == (1, True)
    assert await deliveries.totals("github") == type(totals)(0, None)


async def test_what_asked_for_nothing_is_taken_where_it_comes_again_and_now_does(database: Database) -> None:
    deliveries = Deliveries(database)
    assert await deliveries.keep("worker", "1", "issues", None)
    assert not await deliveries.keep("worker", "1", "issues", None)
    assert await deliveries.keep("worker", "1", "issues", b"{}")
    (taken,) = await deliveries.take(most=8, again=MINUTE)
    await deliveries.done(taken)
    assert not await deliveries.keep("worker", "1", "issues", b"{}")


def installation(action: str, **more: Any) -> dict[str, Any]:
    told = {"id": 5, "app_id": 77, "account": {"login": "ada"}, "repository_selection": "selected", "updated_at": None}
    return {"action": action, "installation": told, **more}


def names(*full_names: str) -> list[dict[str, str]]:
    return [{"full_name": name} for name in full_names]


async def test_where_an_app_is_installed_is_kept(hooked: Hooked) -> None:
    apps = hooked.gateway.apps
    await hooked.deliver("installation", installation("created", repositories=names("ada/one", "ada/two")))
    (found,) = await apps.installations()
    assert (found.installation_id, found.app_id, found.account) == (5, 77, "ada")
    assert found.repositories == ("ada/one", "ada/two")
    changes = {"repositories_added": names("ada/three"), "repositories_removed": names("ada/one")}
    await hooked.deliver("installation_repositories", installation("added", **changes))
    await hooked.deliver("installation", installation("suspend"))
    (found,) = await apps.installations()
    assert (found.repositories, found.suspended_at is not None) == (("ada/three", "ada/two"), True)
    await hooked.deliver("installation", installation("unsuspend"))
    (found,) = await apps.installations()
    assert found.suspended_at is None
    await hooked.deliver("installation", installation("deleted"))
    assert await apps.installations() == []
    assert set(await hooked.left()) == {(False, 1, "")}


@pytest.mark.parametrize("told", [None, SecretStr(""), SecretStr("of the settings")])
async def test_the_secret_of_the_settings_will_do_and_that_of_the_app(
    database: Database, monkeypatch: pytest.MonkeyPatch, told: SecretStr | None
) -> None:
    apps = ForgeApps(database, Sealer(Fernet.generate_key().decode()))
    secrets = WebhookSecrets(told, apps)
    own = ["of the settings"] if told is not None and told.get_secret_value() else []
    assert await secrets.known() == own
    await apps.store(APP)
    assert await secrets.known() == own  # it is asked for every few seconds
    monkeypatch.setattr(secrets, "_known_until", 0.0)
    assert await secrets.known() == [*own, "of the App"]
    # Nor does one that cannot be opened here take the other away.
    assert await WebhookSecrets(told, ForgeApps(database, Sealer(None))).known() == own


async def test_the_sweep_answers_all_that_has_ended(hooked: Hooked) -> None:
    for number in range(30):
        await hooked.deliver("issues", issue_payload(number=number + 1))
    await hooked.domain.execute("UPDATE jobs SET state = 'cancelled', cancel_requested_at = now(), finished_at = now()")
    await Answering(WorkItems(hooked.domain.database)).run_once()
    said = await hooked.said()
    assert len(said) == 60
    assert said.count("The job was cancelled; nothing was changed here.") == 30
