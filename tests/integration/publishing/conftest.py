"""Publishing as processes: a GitHub for the session, of an emulated half and a Git server; sites of a test's own, and
one that tests share whose faults concern one repository each.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from quarterdeck.stack.embedded import EmbeddedServers
from tests.integration.conftest import drop_database, execute
from tests.integration.publishing.forge_git import ForgeGit, forge_git
from tests.integration.publishing.made import Workshop
from tests.integration.publishing.secrecy import assert_no_token
from tests.integration.publishing.site import HASTY_VCS, Site, open_site
from tests.integration.vcs.github.emulated import Emulate, running_emulate
from tests.integration.vcs.github.faults import FaultProxy, running_proxy


@pytest.fixture(scope="session")
async def emulate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Emulate]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    async with running_emulate(pem, tmp_path_factory.mktemp("emulate")) as running:
        yield running


@pytest.fixture(scope="session")
async def git(emulate: Emulate, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ForgeGit]:
    workshop = Workshop(tmp_path_factory.mktemp("workshop") / "bare")
    async with forge_git(tmp_path_factory.mktemp("git"), workshop, emulate.ada) as server:
        yield server


@pytest.fixture
async def proxy(emulate: Emulate) -> AsyncIterator[FaultProxy]:
    async with running_proxy(emulate.address) as running:
        yield running


@pytest.fixture
async def site(
    tmp_path: Path, git: ForgeGit, emulate: Emulate, proxy: FaultProxy, database_url: str, nats_url: str
) -> AsyncIterator[Site]:
    """For a test alone, with nothing started."""
    addresses = {"DATABASE_URL": database_url, "NATS_URL": nats_url}
    async with open_site(tmp_path, git, emulate, proxy, addresses) as site:
        yield site
        await assert_no_token(site)


@pytest.fixture(scope="session")
async def shared_site(
    servers: EmbeddedServers,
    template_database: str,
    git: ForgeGit,
    emulate: Emulate,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Site]:
    """A scheduler and a hasty vcs for all tests whose faults are those of one repository."""
    name = f"test_publishing_{secrets.token_hex(4)}"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    async with running_proxy(emulate.address) as proxy, EmbeddedServers(servers=("nats",)) as nats:
        addresses = {"DATABASE_URL": servers.postgres.database_url(name), "NATS_URL": nats.nats_url}
        folder = tmp_path_factory.mktemp("site")
        async with open_site(folder, git, emulate, proxy, addresses) as site:
            await site.start_scheduler()
            await site.start_vcs(HASTY_VCS)
            yield site
            await assert_no_token(site)
    await drop_database(servers, name)
