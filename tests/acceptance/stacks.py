"""Whole stacks for the acceptance tests: started, spoken to, and looked into by process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from quarterdeck import Client
from quarterdeck.demo.git import commit_all, git
from quarterdeck.stack.detached import read_status, start_detached, stop_detached
from quarterdeck.stack.errors import StackNotRunningError
from quarterdeck.stack.options import StackOptions
from services.contracts.rest import Job, JobOptions, Run

DEADLINE_SECONDS = 60
POLL_SECONDS = 0.1
PROMPT = "replace all occurrences of 'colour' with 'color'"
FILES = {f"src/part_{number}.py": f"colour_{number} = 'the colour'\n" for number in range(3)}


@dataclass
class Stack:
    options: StackOptions
    client: Client
    api_key: str = field(default="", repr=False)

    async def pid(self, name: str) -> int:
        """The process's id now; it may have been started again."""
        info = (await read_status(self.options.data_dir)).info
        assert info is not None
        return info.processes[name]

    async def signal(self, name: str, number: signal.Signals) -> int:
        pid = await self.pid(name)
        os.kill(pid, number)
        return pid

    async def until_healthy(self) -> None:
        async def healthy() -> bool:
            return (await read_status(self.options.data_dir)).healthy

        await until(healthy)

    async def submit(self, *repositories: Path | str, prompt: str = PROMPT, options: JobOptions | None = None) -> Job:
        return await self.client.submit(prompt, [str(each) for each in repositories], options=options)

    async def runs(self, job: Job) -> list[Run]:
        return [run async for run in self.client.runs(job.id)]

    async def until_run(self, job: Job, condition: Callable[[Run], bool]) -> Run:
        """The job's first run once it is as wanted."""
        found: list[Run] = []

        async def is_so() -> bool:
            found[:] = await self.runs(job)
            return condition(found[0])

        await until(is_so)
        return found[0]

    async def finished(self, job: Job) -> Job:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.client.wait(job.id)


@asynccontextmanager
async def running_stack(
    data_dir: Path, *, agents: int = 1, variables: Mapping[str, str] | None = None
) -> AsyncIterator[Stack]:
    """A stack of its own with the offline model; stopped at the end. ``variables``: set while it starts."""
    os.environ.update(variables or {})
    options = StackOptions(
        data_dir=data_dir, agents=agents, database_url=None, nats_url=None, anthropic_api_key=None, claude_model=None
    )
    try:
        info = await start_detached(options)
    finally:
        for name in variables or ():
            del os.environ[name]
    try:
        async with Client(info.address, info.api_key) as client:
            yield Stack(options, client, info.api_key)
    finally:
        with suppress(StackNotRunningError):  # the test has stopped it
            await stop_detached(data_dir)


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = DEADLINE_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  other processes set no event here
            await asyncio.sleep(POLL_SECONDS)


def bare_origin(folder: Path, name: str) -> Path:
    """A bare repository with a few files that the prompt changes."""
    files = folder / f"{name}-files"
    for path, content in (FILES | {"README.md": "Nothing to change.\n"}).items():
        (files / path).parent.mkdir(parents=True, exist_ok=True)
        (files / path).write_text(content)
    origin = folder / f"{name}.git"
    commit_all(files, origin, "base")
    return origin


def branches(origin: Path) -> list[str]:
    """Ours, in the origin."""
    listed = git("for-each-ref", "--format=%(refname:short)", "refs/heads/quarterdeck", folder=origin)
    return listed.decode().split()


def assert_delivered_once(origin: Path, run: Run) -> None:
    """One branch, with one commit on its base, that holds exactly the change."""
    assert (run.state, run.outcome) == ("completed", "delivered"), run.error
    assert branches(origin) == [run.branch]
    commits = git("rev-list", f"{run.base_sha}..{run.branch}", folder=origin).decode().split()
    assert run.changeset is not None
    assert commits == [run.changeset.commit_sha]
    for path, content in FILES.items():
        held = git("show", f"{commits[0]}:{path}", folder=origin).decode()
        assert held == content.replace("colour", "color")
    changed = git("diff", "--name-only", str(run.base_sha), commits[0], folder=origin).decode().split()
    assert changed == sorted(FILES)
