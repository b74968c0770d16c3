"""One attempt of one run, from its claim to one of the ways it can end. Whatever happens, one of them is recorded."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from services.agent import events
from services.agent.allowance import BudgetExhaustedError
from services.agent.assembly import Shared, kind_of, loop_of, offered_before, toolbox_of
from services.agent.configuration import Configuration, ConfigurationError, resolve
from services.agent.delivery import AUTO, Delivery
from services.agent.endings import Finished, Parked, RunFailedError, blocked, stored_end
from services.agent.events import DeltaStream
from services.agent.loop import Loop
from services.agent.mcp import McpTools, connected
from services.agent.model import (
    ContextExhaustedError,
    ModelRejectedError,
    ModelUnavailableError,
    PostponedError,
    Profile,
)
from services.agent.prompts import prompt
from services.agent.sandbox import Limits
from services.agent.tools import Workspace
from services.agent.transcript import Transcript
from services.agent.unstored_use import UnstoredUse
from services.agent.vcs_client import VcsAwayError, VcsFailedError
from services.agent.verification import detect_in_base
from services.contracts.words import ExitReason, JobKind, Outcome
from services.jobs.errors import LeaseLostError
from services.jobs.models import Checkpoint, ClaimedRun
from services.jobs.unit import Draft
from services.runtime.backing_off import back_off
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("agent.attempt")

_FIRST_DELAY_SECONDS = 5.0
_LONGEST_DELAY_SECONDS = 300.0
_AWAY_SECONDS = 2.0
"""Until a run is tried again whose node has no vcs just now; another node may take it before."""


class Attempt:
    def __init__(self, run: ClaimedRun, shared: Shared) -> None:
        self._run = run
        self._hold = run.hold
        self._shared = shared = replace(shared, sandbox=shared.sandbox.for_one_attempt())
        self._running = shared.running
        self._deltas = DeltaStream(shared.bus, run.hold)
        self._loop: Loop | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._is_rung = False
        self._left: Checkpoint | None = None
        self._tests_found: str | None = None
        self._news_known = shared.budget_news.count
        self._unstored = UnstoredUse(lambda uses: shared.running.count_void(run.hold, uses))
        self._until = time.monotonic() + run.seconds_left

    async def work(self) -> None:
        """Do the run's work and record how it ended.

        When cancelled, nothing is recorded: who cancelled knows why, and says so once the work is gone.
        Raises ``LeaseLostError``, ``StoreUnavailableError``: then the lease runs out, and the run goes on elsewhere.
        """
        try:
            await self._work_and_record()
        except (asyncio.CancelledError, LeaseLostError):  # also where the end was refused: a cancel came first
            self._left = self._loop.left() if self._loop is not None else None
            raise
        finally:
            self._close()

    async def _work_and_record(self) -> None:
        try:
            await self._work_in_time()
        except VcsAwayError as error:
            await self._running.postpone(self._hold, error=str(error), delay=_moment())
        except (RunFailedError, VcsFailedError) as error:
            await self._fail_or_retry(error.reason, str(error), retryable=error.retryable)
        except ContextExhaustedError as error:
            await self._running.fail(self._hold, ExitReason.CONTEXT_EXHAUSTED, error=str(error))
        except (ModelRejectedError, ConfigurationError) as error:
            await self._running.fail(self._hold, ExitReason.MODEL_REJECTED, error=str(error))
        except BudgetExhaustedError as error:
            await self._running.fail(self._hold, ExitReason.BUDGET_EXHAUSTED, error=str(error))
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

    def left(self) -> Checkpoint | None:
        return self._left

    def kill(self) -> None:
        """End all programs of the attempt at once: the lease is lost."""
        self._shared.sandbox.kill()

    async def release(self) -> None:
        """Give the worktree back; what cannot be given back now is left to the vcs's janitor.

        To be called when ``work`` has ended: the tools write only while they are waited for.
        """
        if not self._run.has_worktree:
            return
        with suppress(VcsFailedError, LeaseLostError):
            await self._shared.vcs.release(self._hold, reusable=self._shared.sandbox.is_quiet)

    def hear(self) -> None:
        """The user said something: listen now if it is to interrupt, else at the turn's end."""
        self._is_rung = True
        if self._loop is not None and self._hearing is None:
            self._hearing = asyncio.create_task(self._interrupt_if_wanted(self._loop), name="hear")

    async def _interrupt_if_wanted(self, loop: Loop) -> None:
        try:
            while self._is_rung:  # again where it rang meanwhile: that may have been said after the look
                self._is_rung = False
                await loop.notice()
        except StoreUnavailableError as error:
            log.warning("a message is heard at the turn's end only", error=str(error))
        finally:
            self._hearing = None

    def _close(self) -> None:
        self._deltas.close()
        self._loop = None
        if self._hearing is not None:
            self._hearing.cancel()

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
        finally:
            # Before it is told how the attempt ended: that gives its lease up. A stop that comes meanwhile waits.
            settling = asyncio.create_task(self._unstored.settle())
            try:
                await asyncio.shield(settling)
            except asyncio.CancelledError:
                await asyncio.wait([settling])
                raise

    async def _work(self) -> None:
        if self._run.skipped_for is not None:
            words = f"left alone: {self._run.skipped_for} of the same job name is open"
            await self._running.complete(self._hold, Outcome.SKIPPED, summary=words)
            return
        configuration = resolve(self._run, self._shared.settings, self._shared.sealer)
        async with self._workspace(configuration) as workspace, self._servers(configuration, workspace) as servers:
            if self._run.tree is not None:
                workspace.restore_read_versions(self._run.tree.read_versions)
            toolbox = toolbox_of(self._run, configuration, workspace, self._shared, from_servers=servers.tools)
            loop = loop_of(
                self._run,
                configuration,
                workspace,
                toolbox,
                self._shared,
                deltas=self._deltas,
                notes=servers.problems,
                news_known=self._news_known,
                unstored=self._unstored,
                until=self._until,
            )
            self._loop = loop
            await self._tell_problems(servers.problems)
            if self._is_rung:
                self.hear()  # it rang before there was a loop
            # What ended once would only end again: blocked, stuck, or with tests that fail.
            goes_on = self._run.is_continued and loop.owes_an_answer
            ended = await (loop.go_on(prompt("go_on")) if goes_on else loop.run())
            while not await self._finish(ended, loop, configuration, workspace):
                ended = await loop.run()  # something was said in between: the loop goes on with that

    @asynccontextmanager
    async def _workspace(self, configuration: Configuration) -> AsyncIterator[Workspace]:
        """The worktree; for a conversation without a repository an empty folder that goes with the attempt."""
        told = [events.log_line("warning", note) for note in _notes(configuration)]
        if not self._run.has_worktree:
            folder = Path(tempfile.mkdtemp(prefix="quarterdeck-task-"))
            try:
                await self._begin(told, configuration)
                yield Workspace(folder)
            finally:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            return
        worktree = await self._shared.vcs.prepare(self._run, progress=self._deltas.progress)
        prepared = {"baseSha": worktree.base_sha, "branch": self._run.branch or ""}
        await self._begin(
            [events.prepared(prepared), *told],
            configuration,
            base_sha=worktree.base_sha,
            base_branch=worktree.base_branch,
        )
        if self._run.options.test_command == AUTO and kind_of(self._run, configuration) == "code":
            patch = (self._run.tree.patch if self._run.tree else None) or b""
            self._tests_found = await detect_in_base(self._shared.vcs, self._hold, worktree.path, patch=patch)
        yield Workspace(worktree.path)

    async def _begin(
        self,
        told: list[Draft],
        configuration: Configuration,
        *,
        base_sha: str | None = None,
        base_branch: str | None = None,
    ) -> None:
        run = self._run
        if run.messages:
            words = f"attempt {self._hold.attempt} goes on after message {len(run.messages)} of the transcript"
            told.append(events.log_line("info", words))
        if _begins_with_a_turn(run):
            told.append(events.turn_started(run.turns + 1, configuration.model))
        if self._hold.attempt > 1:
            await self._deltas.reset(run.turns + 1, f"attempt {self._hold.attempt} begins")
        await self._running.prepared(self._hold, base_sha=base_sha, base_branch=base_branch, events=told)

    @asynccontextmanager
    async def _servers(self, configuration: Configuration, workspace: Workspace) -> AsyncIterator[McpTools]:
        """The MCP servers of the run's client, for as long as the attempt works."""
        if not configuration.mcp_servers or kind_of(self._run, configuration) == "plan":
            yield McpTools()
            return
        async with connected(
            configuration.mcp_servers,
            sandbox=self._shared.sandbox,
            worktree=workspace.root,
            limits=Limits(),
            allow_private_addresses=self._shared.settings.allow_private_addresses,
            expected=offered_before(self._run),
        ) as servers:
            try:
                yield servers
            except LeaseLostError:
                self.kill()  # else the servers would be given the time to end by themselves
                raise

    async def _tell_problems(self, problems: Sequence[str]) -> None:
        if problems:
            await self._running.tell(self._hold, [events.log_line("warning", problem) for problem in problems])

    async def _finish(
        self, ended: Finished | Parked, loop: Loop, configuration: Configuration, workspace: Workspace
    ) -> bool:
        """Record how the loop ended; False where that does not stand, as the user has said something unread."""
        await self._unstored.store()
        if isinstance(ended, Parked):
            return await self._shared.messaging.park(self._hold, summary=ended.summary)
        if ended.blocked:
            raise blocked(ended)
        if kind_of(self._run, configuration) == "code":
            delivery = Delivery(self._run, configuration, self._shared, workspace.root, tests_found=self._tests_found)
            await delivery.deliver(ended, loop)
            return True
        if self._run.kind is not JobKind.TASK:  # a task's user may have said something that its results go with
            await loop.conclude()
        return await self._running.complete(
            self._hold, Outcome.ANSWERED, summary=ended.summary, read_through=ended.read_through
        )

    async def _fail_or_retry(self, reason: ExitReason, words: str, *, retryable: bool) -> None:
        spent = self._run.attempts_spent + 1
        if retryable and spent < self._run.options.max_attempts:
            await self._running.retry(self._hold, error=words, delay=_delay(spent))
        else:
            if self._loop is not None:
                await self._loop.conclude()
            await self._running.fail(self._hold, reason, error=words)


def _begins_with_a_turn(run: ClaimedRun) -> bool:
    """Else the tools of the turn before come first, or the run had been concluded, and only that is to be recorded."""
    if not run.messages:
        return True
    return run.messages[-1].role == "user" and stored_end(Transcript(run.messages, copied=run.copied)) is None


def _notes(configuration: Configuration) -> list[str]:
    """What was asked for and cannot be had."""
    profile = Profile(configuration.model, configuration.max_tokens, configuration.temperature, configuration.effort)
    return [*configuration.notes, *profile.left_out()]


def _moment() -> timedelta:
    return timedelta(seconds=random.uniform(0.5, 1.5) * _AWAY_SECONDS)  # noqa: S311  jitter, not a secret


def _delay(attempts_spent: int) -> timedelta:
    return back_off(attempts_spent, first_seconds=_FIRST_DELAY_SECONDS, longest_seconds=_LONGEST_DELAY_SECONDS)
