"""A whole local stack whose one agent talks to the scripted model: what the agent's measures have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quarterdeck import Client
from quarterdeck.stack import DataFolder, LocalStack
from quarterdeck.stack.info import StackInfo
from services.contracts.rest import Job
from tests.bench.agent_bare import BareSdk, bare_sdk
from tests.bench.agent_model import ScriptedModel, Talk, scripted_model
from tests.bench.agent_scripts import FILES, Reply
from tests.bench.measure import Bench, JobFailedError
from tests.bench.stacks import options, origin

_MOST_TURNS = {"maxTurns": 1_000}
_TOLD_CHARACTERS = 4_000


@dataclass(frozen=True)
class AgentStack:
    """``repository``: a bare one of 50 small files, which lie in the folder ``files`` beside it."""

    info: StackInfo
    client: Client
    model: ScriptedModel
    repository: Path
    bench: Bench
    _opened: AsyncExitStack

    @property
    def agent_pid(self) -> int:
        return self.info.processes["agent-1"]

    async def script(self, name: str, replies: Sequence[Reply]) -> None:
        await self.model.set_script(name, replies)

    async def begin(self, script: str, *, kind: str = "code", **options: Any) -> tuple[Talk, Job]:
        """A job after that script: on the repository, or for a task in an empty folder. ``options``: the job's."""
        talk = self.model.talk(script)
        repositories = [str(self.repository)] if kind == "code" else []
        job = await self.client.submit(talk.prompt, repositories, kind=kind, options=_MOST_TURNS | options)
        return talk, job

    async def end(self, job: Job) -> None:
        """Cancel the job and wait until it is over."""
        await self.client.cancel_job(job.id)
        await self.client.wait(job.id)

    async def completed(self, job: Job) -> None:
        """Wait for the job's end; raises JobFailedError where it is another one."""
        ended = await self.client.wait(job.id)
        if ended.state != "completed":
            run = await anext(self.client.runs(job.id))
            raise JobFailedError(f"job {job.id} is {ended.state}, not completed: {run.error}")

    async def bare(self, like: Talk, *, uses_tools: bool = False) -> BareSdk:
        """A bare loop that runs until the stack ends. ``uses_tools``: it does what reading calls ask for."""
        files = self.repository.parent / "files" if uses_tools else None
        return await self._opened.enter_async_context(bare_sdk(self.bench, self.model, like, files=files))


@asynccontextmanager
async def agent_stack(bench: Bench, name: str, *, capacity: int = 8) -> AsyncIterator[AgentStack]:
    """``capacity``: how many runs the agent takes at once."""
    repository = origin(bench.folder(name), files=FILES)
    bench.say(f"{name}: starting a stack")
    async with AsyncExitStack() as opened:
        model = await opened.enter_async_context(scripted_model(bench, name))
        asked = options(bench.folder(f"{name}-stack"), model_url=model.url)
        stack = await opened.enter_async_context(LocalStack(replace(asked, agent_capacity=capacity)))
        client = await opened.enter_async_context(Client(stack.info.address, stack.info.api_key))
        try:
            yield AgentStack(stack.info, client, model, repository, bench, opened)
        except JobFailedError as error:
            log = DataFolder(Path(stack.info.data_dir)).log("agent-1").read_text()[-_TOLD_CHARACTERS:]
            raise JobFailedError(f"{error}; the agent's last log lines:\n{log}") from error
