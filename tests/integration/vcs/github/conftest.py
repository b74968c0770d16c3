"""The GitHub forge over real HTTP: an emulated GitHub for the session; a faulty proxy and a forge for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services.vcs.forges import ChangeRef, Opened, PublishedChange
from services.vcs.forges.github import GitHubConfig, GitHubForge, LocalPace
from services.vcs.git.repositories import Repository, parse_repository
from tests.integration.vcs.github.emulated import APP_ID, TOKEN, Emulate, running_emulate
from tests.integration.vcs.github.faults import FaultProxy, running_proxy

PATIENCE = timedelta(seconds=20)
BRANCH = "quarterdeck/fix-1"


@pytest.fixture(scope="session")
def app_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


@pytest.fixture(scope="session")
async def emulate(app_key: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Emulate]:
    async with running_emulate(app_key, tmp_path_factory.mktemp("emulate")) as running:
        yield running


@pytest.fixture
async def proxy(emulate: Emulate) -> AsyncIterator[FaultProxy]:
    async with running_proxy(emulate.address) as running:
        yield running


@pytest.fixture
async def make_forge(proxy: FaultProxy) -> AsyncIterator[Callable[..., GitHubForge]]:
    """With the members of ``GitHubConfig``, and of the forge `pace` and `total_timeout`."""
    async with AsyncExitStack() as stack:

        def make(*, pace: LocalPace | None = None, total_timeout: timedelta = PATIENCE, **members: Any) -> GitHubForge:
            config = GitHubConfig(api_url=proxy.address, server_url=proxy.address, **members)
            forge = GitHubForge(config, pace or LocalPace(), total_timeout=total_timeout)
            stack.push_async_callback(forge.aclose)
            return forge

        yield make


@pytest.fixture
def forge(make_forge: Callable[..., GitHubForge]) -> GitHubForge:
    return make_forge(token=TOKEN)


@pytest.fixture
def app_forge(make_forge: Callable[..., GitHubForge], emulate: Emulate) -> GitHubForge:
    return make_forge(app_id=str(APP_ID), private_key=emulate.app_key)


@dataclass(frozen=True)
class Work:
    """A repository with a pushed branch, and what a test asks of it."""

    emulate: Emulate
    full_name: str
    repository: Repository
    sha: str

    def published(self, **replaced: Any) -> PublishedChange:
        change = PublishedChange(
            changeset_id="cs-1",
            repository=self.repository,
            branch=BRANCH,
            base_branch="main",
            commit_sha=self.sha,
            title="Fix it",
            body="It was broken.",
        )
        return replace(change, **replaced)

    def ref(self, opened: Opened | None = None, **replaced: Any) -> ChangeRef:
        change = ChangeRef("cs-1", self.repository, BRANCH, "main", self.sha)
        if opened is not None:
            change = replace(change, number=opened.number, url=opened.url)
        return replace(change, **replaced)

    async def numbers(self) -> list[int]:
        """Of every pull request there ever was, by the emulator's own list."""
        return sorted(pull["number"] for pull in await self.emulate.ada.pulls(self.full_name))


def repository_of(proxy: FaultProxy, full_name: str) -> Repository:
    return parse_repository(f"{proxy.address}/{full_name}.git", allow_local=False)


@pytest.fixture
async def work(emulate: Emulate, proxy: FaultProxy) -> Work:
    full_name = await emulate.ada.make_repository()
    sha = await emulate.ada.push(full_name, BRANCH)
    return Work(emulate, full_name, repository_of(proxy, full_name), sha)
