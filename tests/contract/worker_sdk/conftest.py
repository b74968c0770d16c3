"""The stand-in, and a folder of a user's where the package is installed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.worker_sdk.standin import StandIn, running_stand_in
from tests.contract.worker_sdk.toolchain import SDK, install_package
from tests.integration.npm import installed

NODE_TESTS = Path(__file__).parent / "node"


@pytest.fixture(scope="session")
async def stand_in() -> AsyncIterator[StandIn]:
    async with running_stand_in() as running:
        yield running


@pytest.fixture(scope="session")
def compiler() -> Path:
    return installed(SDK)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the tests that Node runs, and the package under node_modules."""
    folder = tmp_path_factory.mktemp("worker-sdk") / "project"
    shutil.copytree(NODE_TESTS, folder)
    install_package(folder)
    return folder
