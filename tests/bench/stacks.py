"""Real local stacks for measures, and small repositories for them to work on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from quarterdeck.demo.git import commit_all
from quarterdeck.stack import LocalStack, StackOptions
from quarterdeck.stack.info import StackInfo
from tests.bench.measure import Bench

PROMPT = "replace all occurrences of 'colour' with 'color'"
CHANGED_FILES = {f"src/part_{number}.py": f"colour_{number} = 'the colour'\n" for number in range(3)}
REQUEST_SECONDS = 30


def options(data_dir: Path, *, model_url: str | None = None) -> StackOptions:
    """Embedded servers whatever the environment says; without ``model_url`` the offline model."""
    return StackOptions(
        data_dir=data_dir,
        database_url=None,
        nats_url=None,
        anthropic_api_key="bench" if model_url else None,
        anthropic_base_url=model_url,
        claude_model=None,
    )


@asynccontextmanager
async def running_stack(bench: Bench, name: str, *, model_url: str | None = None) -> AsyncIterator[StackInfo]:
    """A stack of the measure's own, on a new data folder."""
    bench.say(f"{name}: starting a stack")
    async with LocalStack(options(bench.folder(f"{name}-stack"), model_url=model_url)) as stack:
        yield stack.info


def session(info: StackInfo, *, connections: int = 1) -> aiohttp.ClientSession:
    """HTTP to the gateway, with the key."""
    return aiohttp.ClientSession(
        base_url=info.address,
        headers={"Authorization": f"Bearer {info.api_key}"},
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
    )


def origin(folder: Path, *, files: dict[str, str]) -> Path:
    """A bare repository of one commit, in ``folder``."""
    worktree = folder / "files"
    for path, content in files.items():
        (worktree / path).parent.mkdir(parents=True, exist_ok=True)
        (worktree / path).write_text(content)
    bare = folder / "origin.git"
    commit_all(worktree, bare, "base")
    return bare


def small_origin(folder: Path) -> Path:
    """Three files that ``PROMPT`` changes, and one that it does not."""
    return origin(folder, files=CHANGED_FILES | {"README.md": "Nothing to change.\n"})
