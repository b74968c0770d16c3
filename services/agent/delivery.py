"""From a model that says it is done to a changeset: the commit, then its tests, and only then the hand-over."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from services.agent import events
from services.agent.assembly import Shared
from services.agent.checkpoints import TreeTooLargeError
from services.agent.configuration import Configuration
from services.agent.endings import Finished, Parked, RunFailedError, blocked
from services.agent.loop import Loop
from services.agent.prompts import prompt
from services.agent.verification import (
    TESTS_FAILED_MARK,
    Verdict,
    Verifier,
    prompt_of,
    tests_ended,
    tests_started,
)
from services.contracts import subjects
from services.contracts.templates import fill, subject_of, values_of
from services.contracts.trailers import with_trailer
from services.contracts.v1.commands_pb2 import PublishOrder
from services.contracts.v1.vcs_pb2 import CommitMetadata
from services.contracts.words import ExitReason, OnUnverified, Outcome, Publish, Queue
from services.jobs.models import ClaimedRun, Commit
from services.runtime.jetstream import BusUnavailableError, Outgoing

_TOO_LARGE_MARK = prompt("too_large_to_deliver").partition("{")[0]
_MAX_TOO_LARGE = 2
"""How often a change goes back that is too large to be delivered."""
AUTO = "auto"
"""The test command that is to be found in the repository."""


class Delivery:
    def __init__(
        self,
        run: ClaimedRun,
        configuration: Configuration,
        shared: Shared,
        worktree: Path,
        *,
        tests_found: str | None = None,
    ) -> None:
        """``tests_found``: the command that runs the tests that the repository had before the run's work."""
        self._run = run
        self._hold = run.hold
        self._shared = shared
        self._configuration = configuration
        self._worktree = worktree
        self._tests_found = tests_found

    async def deliver(self, finished: Finished, loop: Loop) -> None:
        """Hand over what the model made, checked as the job wants it; failing tests go back to ``loop`` first."""
        command = await self._test_command()
        verifier = self._verifier(command) if command else None
        while True:
            if loop.has_warning:
                finished = await self._told_of_warning(loop)
                continue
            try:
                # Made before the tests run: what they leave behind is never part of it.
                commit = await self._shared.vcs.commit(self._hold, self._commit_metadata(), self._run)
            except TreeTooLargeError as error:
                finished = await self._told_of_size(loop, finished, str(error))
                continue
            if commit is None:
                await loop.conclude()
                await self._complete_without_changes(finished.summary)
                return
            fixes = loop.times_begun(TESTS_FAILED_MARK)
            verdict = await self._verdict(verifier, fixes) if verifier else None
            if verdict is None or not self._may_be_fixed(verdict, fixes) or finished.blocked:
                break
            if not loop.owes_an_answer:
                break  # an earlier attempt had told that this is the end, and died before it was handed over
            # It may be blocked by them: what it has made is then handed over as unverified.
            finished = await self._told(loop, prompt_of(verdict))
        await loop.conclude()
        await self._hand_over(commit, finished.summary, verdict)

    async def _told(self, loop: Loop, words: str) -> Finished:
        """What the model comes to that has called its work done, and hears ``words``."""
        ended = await loop.go_on(words)
        assert not isinstance(ended, Parked), "a code run has no conversation"
        return ended

    async def _seen_to(self, loop: Loop, words: str) -> Finished:
        """The same where nothing can be handed over before. Raises ``RunFailedError`` where it says that it cannot."""
        ended = await self._told(loop, words)
        if ended.blocked:
            raise blocked(ended)
        return ended

    async def _told_of_warning(self, loop: Loop) -> Finished:
        """The same where it has not heard of what became of its worktree."""
        if not loop.owes_an_answer:  # an earlier attempt had told that this is the end, and died before it failed
            words = "the change was too large to be stored, and is gone with the attempt that had made it"
            raise RunFailedError(ExitReason.STUCK, f"{words}; a retry with resume goes on from before")
        return await self._seen_to(loop, prompt("not_done_yet"))

    async def _told_of_size(self, loop: Loop, finished: Finished, problem: str) -> Finished:
        """The same where its change is too large. Raises ``RunFailedError`` where it has heard so often enough."""
        if finished.blocked or not loop.owes_an_answer or loop.times_begun(_TOO_LARGE_MARK) >= _MAX_TOO_LARGE:
            words = f"the change cannot be delivered: {problem}. List what is built or downloaded in .gitignore"
            raise RunFailedError(ExitReason.STUCK, f"{words}; a retry with resume goes on from before it was too large")
        return await self._seen_to(loop, prompt("too_large_to_deliver").format(reason=problem))

    async def _complete_without_changes(self, summary: str) -> None:
        """What an earlier job of the same name has open is stale then: there is nothing left to change."""
        words = "Closed: a new run of the same job found nothing to change."
        stale = await self._shared.running.retire_earlier(self._hold, comment=words)
        if stale:
            told = [events.log_line("info", f"nothing is left to change: {url} is being closed") for url in stale]
            await self._shared.running.tell(self._hold, told)
        await self._shared.running.complete(self._hold, Outcome.NO_CHANGES, summary=summary)

    def _may_be_fixed(self, verdict: Verdict, fixes: int) -> bool:
        return verdict.has_run and not verdict.passed and fixes < self._run.options.max_fix_attempts

    async def _test_command(self) -> str | None:
        wanted = self._run.options.test_command
        if wanted != AUTO:
            return wanted
        if self._tests_found is None:
            words = "no tests were found in what the run began from: the change is delivered without"
            await self._shared.running.tell(self._hold, [events.log_line("warning", words)])
        return self._tests_found

    def _verifier(self, command: str) -> Verifier:
        return Verifier(
            self._shared.sandbox,
            self._shared.vcs,
            self._hold,
            self._worktree,
            command=command,
            timeout=timedelta(seconds=self._run.options.test_timeout_seconds),
            network=self._configuration.network,
        )

    async def _verdict(self, verifier: Verifier, fixes: int) -> Verdict:
        await self._shared.running.tell(self._hold, [tests_started(verifier.command, fixes)])
        verdict = await verifier.check(fixes)
        await self._shared.running.tell(self._hold, [tests_ended(verdict)])
        return verdict

    async def _hand_over(self, commit: Commit, summary: str, verdict: Verdict | None) -> None:
        is_unverified = verdict is not None and not verdict.passed
        publish = self._run.options.publish
        if is_unverified:
            publish = self._unverified(publish)
        if commit.notes:
            await self._shared.running.tell(self._hold, [events.log_line("warning", note) for note in commit.notes])
        changeset_id = await self._shared.running.deliver(
            self._hold,
            commit,
            publish=publish,
            summary=summary,
            verified=verdict.passed if verdict else None,
        )
        if publish is Publish.NONE:
            return
        order = PublishOrder(changeset_id=str(changeset_id), run_id=str(self._hold.run_id), dispatch=1)
        message_id = subjects.publish_order_id(str(changeset_id), 1)
        with suppress(BusUnavailableError):  # the sweep sends it again
            await self._shared.bus.publish(
                Outgoing(subjects.work(Queue.PUBLISH), order.SerializeToString(), message_id)
            )

    def _unverified(self, publish: Publish) -> Publish:
        """How a change whose tests fail is published."""
        if self._run.options.on_unverified is OnUnverified.STORE:
            return Publish.NONE
        return Publish.DRAFT if publish is Publish.PULL_REQUEST else publish

    def _commit_metadata(self) -> CommitMetadata:
        """From the run's row alone, so that the same patch makes the same commit wherever it is made again."""
        run, settings, options = self._run, self._shared.settings, self._run.options
        author = options.commit_author
        name, email = (author.name, author.email) if author else (settings.author_name, settings.author_email)
        message = with_trailer(_message(run), "Quarterdeck-Run", str(self._hold.run_id))
        if options.sign_off:
            message = with_trailer(message, "Signed-off-by", f"{name} <{email}>")
        return CommitMetadata(
            author_name=name, author_email=email, time=int(run.created_at.timestamp()), message=message
        )


def _message(run: ClaimedRun) -> str:
    if run.options.commit_message is None:
        return subject_of(run.name or run.prompt)
    values = values_of(
        name=run.name,
        prompt=run.prompt,
        repository=run.repository,
        branch=run.branch,
        job_id=run.hold.job_id,
        run_id=run.hold.run_id,
    )
    return fill(run.options.commit_message, values)
