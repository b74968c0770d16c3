"""One attempt of one run, from its claim to one of the ways it can end. Whatever happens, one of them is recorded."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_never

from services.agent import events
from services.agent.events import DeltaStream
from services.agent.loop import Finished, Loop, RunFailedError
from services.agent.model import (
    Claude,
    Fragment,
    ModelRejectedError,
    ModelUnavailableError,
    PostponedError,
    Reply,
)
from services.agent.prompts import prompt
from services.agent.settings import AgentSettings
from services.agent.tools import Toolbox, Workspace
from services.agent.transcript import Transcript
from services.agent.vcs_client import VcsAwayError, VcsClient, VcsFailedError
from services.contracts import subjects
from services.contracts.v1.commands_pb2 import PublishOrder
from services.contracts.v1.vcs_pb2 import CommitMetadata
from services.contracts.words import ExitReason, JobKind, Outcome, Publish, Queue
from services.jobs.errors import LeaseLostError
from services.jobs.models import Checkpoint, ClaimedRun, Hold, SavedTree, StoredMessage
from services.jobs.running import Running
from services.jobs.unit import Draft
from services.runtime.jetstream import Bus, BusUnavailableError, Outgoing
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("agent.attempt")

_BACKOFF_SECONDS = 5.0
_LONGEST_BACKOFF_SECONDS = 300.0
_AWAY_SECONDS = 2.0
"""Until a run is tried again whose node has no vcs just now; another node may take it before."""
_SUBJECT_CHARACTERS = 72


@dataclass(frozen=True)
class Tools:
    """What all attempts of a process share."""

    settings: AgentSettings
    running: Running
    claude: Claude
    vcs: VcsClient
    bus: Bus
    searches: asyncio.Semaphore
    """How many ripgrep processes may run at once."""


@dataclass
class BoundModel:
    """Claude with all fixed for a run but its messages."""

    claude: Claude
    name: str
    system: str
    tools: list[dict[str, Any]]

    async def __call__(
        self,
        transcript: Transcript,
        on_fragment: Callable[[Fragment], None],
        on_reset: Callable[[str], Awaitable[None]],
    ) -> Reply:
        return await self.claude.reply(
            model=self.name,
            system=self.system,
            tools=self.tools,
            messages=transcript.messages,
            on_fragment=on_fragment,
            on_reset=on_reset,
        )


class Attempt:
    def __init__(self, run: ClaimedRun, tools: Tools) -> None:
        self._run = run
        self._hold = run.hold
        self._tools = tools
        self._running = tools.running
        self._deltas = DeltaStream(tools.bus, run.hold)
        self._model_name = run.options.model or tools.claude.default_model

    async def work(self) -> None:
        """Do the run's work and record how it ended.

        When cancelled, nothing is recorded: who cancelled knows why, and says so once the work is gone.
        Raises ``LeaseLostError``, ``StoreUnavailableError``: then the lease runs out, and the run goes on elsewhere.
        """
        try:
            await self._work_in_time()
        except VcsAwayError as error:
            await self._running.postpone(self._hold, error=str(error), delay=_moment())
        except (RunFailedError, VcsFailedError) as error:
            await self._fail_or_retry(error.reason, str(error), retryable=error.retryable)
        except ModelRejectedError as error:
            await self._running.fail(self._hold, ExitReason.MODEL_REJECTED, error=str(error))
        except ModelUnavailableError as error:
            await self._fail_or_retry(ExitReason.MODEL_UNAVAILABLE, str(error), retryable=True)
        except PostponedError as error:
            await self._running.postpone(self._hold, error=str(error), delay=error.delay)
        except (LeaseLostError, StoreUnavailableError):
            raise
        except Exception as error:
            log.exception("attempt failed on a bug", run=str(self._hold.run_id))
            words = f"{type(error).__name__}: {error}"
            await self._fail_or_retry(ExitReason.INTERNAL, words, retryable=True)
        finally:
            self._deltas.close()

    async def release(self) -> None:
        """Remove the worktree; what cannot be removed now is left to the vcs's janitor."""
        if self._run.repository is None:
            return
        with suppress(VcsFailedError, LeaseLostError):
            await self._tools.vcs.release(self._hold)

    async def _work_in_time(self) -> None:
        deadline = asyncio.timeout(self._run.seconds_left)
        try:
            async with deadline:
                await self._work()
        except TimeoutError as error:
            if not deadline.expired():  # somebody else's: a bug here, as it should have been told otherwise
                raise
            seconds = self._run.options.deadline_seconds
            raise RunFailedError(ExitReason.TIMED_OUT, f"not finished within {seconds} s") from error

    async def _work(self) -> None:
        async with self._workspace() as workspace:
            if self._run.tree is not None:
                workspace.restore_read_versions(self._run.tree.read_versions)
            finished = await self._loop(workspace).run()
            if finished.blocked:
                raise RunFailedError(ExitReason.BLOCKED, finished.summary or "the model said that it cannot go on")
            await self._finish(finished)

    @asynccontextmanager
    async def _workspace(self) -> AsyncIterator[Workspace]:
        """The worktree; for a task without a repository an empty folder that goes with the attempt."""
        if self._run.repository is None:
            folder = Path(tempfile.mkdtemp(prefix="quarterdeck-task-"))
            try:
                await self._begin([])
                yield Workspace(folder)
            finally:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            return
        worktree = await self._tools.vcs.prepare(self._run)
        prepared = {"baseSha": worktree.base_sha, "branch": self._run.branch or ""}
        await self._begin([events.prepared(prepared)], base_sha=worktree.base_sha, base_branch=worktree.base_branch)
        yield Workspace(worktree.path)

    async def _begin(self, told: list[Draft], *, base_sha: str | None = None, base_branch: str | None = None) -> None:
        run = self._run
        if run.messages:
            words = f"attempt {self._hold.attempt} goes on after message {len(run.messages)} of the transcript"
            told.append(events.log_line("info", words))
        if not run.messages or run.messages[-1].role == "user":  # else the tools of the turn before come first
            told.append(events.turn_started(run.turns + 1, self._model_name))
        if self._hold.attempt > 1:
            await self._deltas.reset(run.turns + 1, f"attempt {self._hold.attempt} begins")
        await self._running.prepared(self._hold, base_sha=base_sha, base_branch=base_branch, events=told)

    def _loop(self, workspace: Workspace) -> Loop:
        run = self._run
        toolbox = Toolbox(workspace, kind=run.kind.value, searches=self._tools.searches)
        transcript = Transcript(run.messages or [_first_message(run)])
        specs = [
            {"name": spec.name, "description": spec.description, "input_schema": spec.input_schema}
            for spec in toolbox.specs
        ]
        first = [] if run.messages else [_first_message(run)]
        model = BoundModel(self._tools.claude, self._model_name, prompt(run.kind.value), specs)
        return Loop(
            model=model,
            toolbox=toolbox,
            transcript=transcript,
            deltas=self._deltas,
            save=_Saver(self._running, run, first),
            saved_tree=_TreeReader(self._tools.vcs, run.hold, workspace),
            turns=run.turns,
            max_turns=run.options.max_turns or 100,
            ends_on_text=run.kind is JobKind.TASK,
        )

    async def _finish(self, finished: Finished) -> None:
        match self._run.kind:
            case JobKind.TASK:
                await self._running.complete(self._hold, Outcome.ANSWERED, summary=finished.summary)
            case JobKind.CODE:
                await self._deliver(finished)
            case _:
                assert_never(self._run.kind)

    async def _deliver(self, finished: Finished) -> None:
        commit = await self._tools.vcs.commit(self._hold, self._commit_metadata(), self._run)
        if commit is None:
            await self._running.complete(self._hold, Outcome.NO_CHANGES, summary=finished.summary)
            return
        publish = self._run.options.publish is not Publish.NONE
        changeset_id = await self._running.deliver(self._hold, commit, publish=publish, summary=finished.summary)
        if publish:
            order = PublishOrder(changeset_id=str(changeset_id), run_id=str(self._hold.run_id), dispatch=1)
            message_id = subjects.work_order_id(str(changeset_id), 1)
            with suppress(BusUnavailableError):  # the sweep sends it again
                await self._tools.bus.publish(
                    Outgoing(subjects.work(Queue.PUBLISH), order.SerializeToString(), message_id)
                )

    def _commit_metadata(self) -> CommitMetadata:
        """From the run's row alone, so that the same patch makes the same commit wherever it is made again."""
        run, settings = self._run, self._tools.settings
        message = run.options.commit_message or _title(run)
        return CommitMetadata(
            author_name=settings.author_name,
            author_email=settings.author_email,
            time=int(run.created_at.timestamp()),
            message=f"{message.rstrip()}\n\nQuarterdeck-Run: {self._hold.run_id}\n",
        )

    async def _fail_or_retry(self, reason: ExitReason, words: str, *, retryable: bool) -> None:
        spent = self._run.attempts_spent + 1
        if retryable and spent < self._run.options.max_attempts:
            await self._running.retry(self._hold, error=words, delay=_back_off(spent))
        else:
            await self._running.fail(self._hold, reason, error=words)


class _Saver:
    """Stores checkpoints; the run's first message goes with the first of them."""

    def __init__(self, running: Running, run: ClaimedRun, first: list[StoredMessage]) -> None:
        self._running = running
        self._hold = run.hold
        self._first = first

    async def __call__(self, checkpoint: Checkpoint) -> None:
        messages = [*self._first, *checkpoint.messages]
        await self._running.checkpoint(self._hold, replace(checkpoint, messages=messages))
        self._first = []


class _TreeReader:
    """What a checkpoint has to store of the worktree."""

    def __init__(self, vcs: VcsClient, hold: Hold, workspace: Workspace) -> None:
        self._vcs = vcs
        self._hold = hold
        self._workspace = workspace
        self._stored_versions = workspace.read_versions()

    async def __call__(self, wrote: bool) -> SavedTree | None:
        versions = self._workspace.read_versions()
        if not wrote and versions == self._stored_versions:
            return None
        patch = await self._vcs.checkpoint(self._hold) if wrote else None
        self._stored_versions = versions
        return SavedTree(patch, versions)


def _first_message(run: ClaimedRun) -> StoredMessage:
    return Transcript([]).append("user", [{"type": "text", "text": run.prompt}])


def _title(run: ClaimedRun) -> str:
    first_line = (run.name or run.prompt).strip().splitlines()[0]
    return first_line if len(first_line) <= _SUBJECT_CHARACTERS else first_line[: _SUBJECT_CHARACTERS - 1] + "…"


def _moment() -> timedelta:
    return timedelta(seconds=random.uniform(0.5, 1.5) * _AWAY_SECONDS)  # noqa: S311  jitter, not a secret


def _back_off(attempts_spent: int) -> timedelta:
    ceiling = min(_LONGEST_BACKOFF_SECONDS, _BACKOFF_SECONDS * 2 ** (attempts_spent - 1))
    return timedelta(seconds=random.uniform(ceiling / 2, ceiling))  # noqa: S311  jitter, not a secret
