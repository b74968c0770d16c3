"""A GitHub that others wrote delivers its webhook to the gateway by itself."""

from collections.abc import AsyncIterator
from uuid import UUID

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services.gateway.webhooks.github import PATH
from services.runtime.postgres import Database
from tests.integration.gateway.conftest import StartGateway, is_healthy
from tests.integration.jobs.changes import HOUR, open_change
from tests.integration.jobs.domain import Domain
from tests.integration.vcs.github.emulated import Emulate, running_emulate
from tests.integration.waiting import until_async

SECRET = "it's a secret to everybody"
BRANCH = "quarterdeck/fix-1"


@pytest.fixture(scope="session")
async def emulate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Emulate]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    async with running_emulate(pem, tmp_path_factory.mktemp("emulate")) as running:
        yield running


async def add_hook(emulate: Emulate, repository: str, gateway: httpx.AsyncClient, secret: str) -> None:
    config = {"url": str(gateway.base_url.join(PATH)), "content_type": "json", "secret": secret}
    hook = {"name": "web", "events": ["pull_request"], "config": config}
    await emulate.ada.ask("POST", f"/repos/{repository}/hooks", hook)


async def open_pull(emulate: Emulate, repository: str) -> int:
    await emulate.ada.push(repository, BRANCH)
    body = {"title": "Fix it", "head": BRANCH, "base": "main"}
    number: int = (await emulate.ada.ask("POST", f"/repos/{repository}/pulls", body))["number"]
    return number


async def test_a_pull_request_that_is_closed_there_is_looked_at_here(
    start_gateway: StartGateway, database_url: str, nats_url: str, database: Database, emulate: Emulate
) -> None:
    gateway = await start_gateway(database_url, nats_url, github_webhook_secret=SECRET)
    await until_async(lambda: is_healthy(gateway))
    domain = Domain(database)
    domain.client = await domain.new_client("tester")
    repository, forged = [await emulate.ada.make_repository() for _ in range(2)]
    changesets = []
    for name in (repository, forged):
        number = await open_pull(emulate, name)
        changesets.append(await open_change(domain, number, f"{emulate.address}/{name}.git"))
    # Nothing is due before, and one repository's hook has another secret.
    assert await domain.tracking.take_due(most=9, again=HOUR) == []
    await add_hook(emulate, forged, gateway, "another")
    await add_hook(emulate, repository, gateway, SECRET)

    for name in (forged, repository):
        (pull,) = await emulate.ada.pulls(name)
        await emulate.ada.ask("PATCH", f"/repos/{name}/pulls/{pull['number']}", {"state": "closed"})

    woken: list[UUID] = []

    async def some_are_due() -> bool:
        woken.extend(change.id for change in await domain.tracking.take_due(most=9, again=HOUR))
        return bool(woken)

    await until_async(some_are_due)
    assert woken == changesets[:1]
    rows = await domain.rows("SELECT event FROM webhook_deliveries")
    assert {row["event"] for row in rows} == {"pull_request"}
