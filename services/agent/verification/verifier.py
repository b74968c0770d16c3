"""Runs the tests of a worktree in the sandbox, and puts the worktree back to the model's own work after them."""

from datetime import timedelta
from pathlib import Path
from typing import Protocol

from services.agent.sandbox import Ended, Limits, SandboxUnavailableError
from services.agent.verification.verdict import CANNOT_BE_EXECUTED, Verdict, end_of
from services.jobs.models import Hold
from services.runtime.telemetry import logger

log = logger("agent.verification")


class Commands(Protocol):
    """What is needed of a sandbox."""

    async def run(self, argv: list[str], *, worktree: Path | None, limits: Limits, network: bool) -> Ended:
        """Raises ``SandboxUnavailableError``."""


class Snapshots(Protocol):
    """What is needed of the vcs."""

    async def checkpoint(self, hold: Hold) -> bytes:
        """The worktree as a patch against its base."""

    async def restore(self, hold: Hold, patch: bytes) -> None:
        """Put the worktree back to base and patch."""


class Verifier:
    def __init__(
        self,
        sandbox: Commands,
        vcs: Snapshots,
        hold: Hold,
        worktree: Path,
        *,
        command: str,
        timeout: timedelta,
        network: bool,
    ) -> None:
        """``command``: one line for a shell. ``timeout``: of one run, in wall time. ``network``: whether it has one."""
        self.command = command
        self._sandbox = sandbox
        self._vcs = vcs
        self._hold = hold
        self._worktree = worktree
        self._timeout = timeout
        self._network = network

    async def check(self, fix_attempt: int) -> Verdict:
        """Run the tests once; nothing that they left behind is in the worktree then, but for ignored files.

        ``fix_attempt``: how often failures went back to the model before; for the log. A command that cannot be
        started is a failing verdict. Raises ``VcsFailedError``, ``LeaseLostError``.
        """
        patch = await self._vcs.checkpoint(self._hold)
        try:
            verdict = self._verdict(await self._run())
        except SandboxUnavailableError as error:
            verdict = self._unavailable(str(error))
        # Not where this is cancelled: the run is over then, or lost, and its worktree goes.
        await self._vcs.restore(self._hold, patch)
        log.info(
            "tests ended",
            run=str(self._hold.run_id),
            passed=verdict.passed,
            exit_code=verdict.exit_code,
            seconds=verdict.duration.total_seconds(),
            fix_attempt=fix_attempt,
        )
        return verdict

    async def _run(self) -> Ended:
        limits = Limits(wall=self._timeout, cpu=max(self._timeout, Limits().cpu))
        argv = ["/bin/sh", "-c", self.command]
        return await self._sandbox.run(argv, worktree=self._worktree, limits=limits, network=self._network)

    def _verdict(self, ended: Ended) -> Verdict:
        return Verdict(
            passed=ended.exit_code == 0 and not ended.timed_out,
            exit_code=ended.exit_code,
            timed_out=ended.timed_out,
            output=end_of(ended.output),
            command=self.command,
            duration=ended.duration,
        )

    def _unavailable(self, why: str) -> Verdict:
        return Verdict(
            passed=False,
            exit_code=CANNOT_BE_EXECUTED,
            timed_out=False,
            output=end_of(f"The tests could not be run: {why}"),
            command=self.command,
            duration=timedelta(0),
            has_run=False,
        )
