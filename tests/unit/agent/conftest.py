"""A workspace with secrets beside it, and a toolbox over it, for the tests of the agent's tools."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from services.agent.tools import Toolbox, ToolCall, ToolResult, Workspace

SECRET = "the secret outside"
Use = Callable[..., Coroutine[Any, Any, ToolResult]]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text(SECRET)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def workspace(root: Path) -> Workspace:
    return Workspace(root)


@pytest.fixture
def toolbox(workspace: Workspace) -> Toolbox:
    return Toolbox(workspace)


@pytest.fixture
def use(toolbox: Toolbox) -> Use:
    """Call one tool of the toolbox by name, with keyword arguments, and give its result."""

    async def call(name: str, **arguments: Any) -> ToolResult:
        (result,) = await toolbox.run([ToolCall("call", name, arguments)])
        return result

    return call
