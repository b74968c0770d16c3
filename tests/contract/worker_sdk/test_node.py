"""The JavaScript package in Node, against a server that breaks its streams."""

from pathlib import Path

import pytest

from tests.contract.worker_sdk.conftest import NODE_TESTS
from tests.contract.worker_sdk.standin import StandIn
from tests.contract.worker_sdk.toolchain import node


@pytest.mark.parametrize("name", sorted(path.name for path in NODE_TESTS.glob("*.test.mjs")))
async def test_what_node_runs(name: str, project: Path, stand_in: StandIn) -> None:
    environment = {"WORKER_ADDRESS": stand_in.address}
    code, out, err = await node("--test", "--test-reporter=tap", name, folder=project, environment=environment)
    assert code == 0, out + err
    assert "\n# pass 0\n" not in out
