"""Carries out publications: makes the commit again, pushes it, opens it on the forge, records it. Killed at any
instant, the next claim lands on the same branch with the same commit.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import timedelta
from typing import Final, assert_never
from uuid import UUID

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import PublishOrder
from services.contracts.words import ExitReason, Queue
from services.jobs.errors import LeaseLostError
from services.jobs.heartbeat import Ending, Heartbeat
from services.jobs.publishing import Publication, Publishing
from services.runtime.jetstream import Bus, Message
from services.runtime.lifecycle import Capacity
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger
from services.vcs.commits import Commits
from services.vcs.errors import CloneFailedError, PatchInexactError, PushRejectedError, VcsError
from services.vcs.forges import Forge, PublishedChange
from services.vcs.git import Git
from services.vcs.mirrors import Mirrors
from services.vcs.push import push
from services.vcs.repositories import parse_repository
from services.vcs.trees import CommitMetadata

log = logger("vcs.publisher")

MAX_TRIES: Final = 5
_BACKOFF_SECONDS: Final = 2.0


class Publisher:
    def __init__(
        self,
        *,
        publishing: Publishing,
        heartbeat: Heartbeat,
        bus: Bus,
        git: Git,
        mirrors: Mirrors,
        commits: Commits,
        forge: Forge,
        holder: str,
        most: int,
    ) -> None:
        """``holder``: this process's node name. ``most``: publications at once."""
        self._publishing = publishing
        self._heartbeat = heartbeat
        self._bus = bus
        self._git = git
        self._mirrors = mirrors
        self._commits = commits
        self._forge = forge
        self._holder = holder
        self._capacity = Capacity(most)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Take publish orders for ever."""
        orders = self._bus.pull(
            subjects.WORK_STREAM,
            subjects.work(Queue.PUBLISH),
            subjects.work_consumer(Queue.PUBLISH),
            batch=self._capacity.free,
        )
        async for messages in orders:
            for message in messages:
                self._capacity.take()
                task = asyncio.create_task(self._take(message), name="publication")
                self._tasks.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._capacity.give_back()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("publication failed unexpectedly", exc_info=error)

    async def drain(self, timeout: timedelta) -> None:
        """Let publications finish until ``timeout``; what is cut off is carried out by the next claim."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout.total_seconds())
        for task in self._tasks:
            task.cancel()

    async def _take(self, message: Message) -> None:
        order = PublishOrder.FromString(message.data)
        claimed_at = time.monotonic()
        try:
            publication = await self._publishing.claim(
                UUID(order.changeset_id), UUID(order.run_id), dispatch=order.dispatch, holder=self._holder
            )
        except StoreUnavailableError:
            return  # not acknowledged: it comes again
        await message.ack()
        if publication is not None:
            await self._publish_leased(publication, claimed_at)

    async def _publish_leased(self, publication: Publication, claimed_at: float) -> None:
        task = asyncio.current_task()
        assert task is not None

        def end(ending: Ending) -> None:
            match ending:
                case Ending.LOST:
                    task.cancel("lease lost")
                case Ending.CANCELLED:
                    log.info("too late to cancel: the push has begun", run=str(publication.hold.run_id))
                case _:
                    assert_never(ending)

        hold = publication.hold
        self._heartbeat.hold(hold.changeset_id, hold.token, claimed_at=claimed_at, on_end=end)
        try:
            await self._publish(publication)
        except (LeaseLostError, StoreUnavailableError) as error:
            log.warning("publication given up; another claim carries it out", error=str(error))
        finally:
            self._heartbeat.drop(hold.changeset_id)

    async def _publish(self, publication: Publication) -> None:
        hold = publication.hold
        try:
            url = await self._push_and_open(publication)
        except (PushRejectedError, CloneFailedError) as error:
            if error.retryable and publication.tries < MAX_TRIES:
                log.warning("publication will be tried again", run=str(hold.run_id), error=str(error))
                await self._publishing.retry(hold, error=str(error), delay=_back_off(publication.tries))
            else:
                await self._publishing.failed(hold, reason=ExitReason.PUSH_REJECTED, error=str(error))
        except VcsError as error:
            await self._publishing.failed(hold, reason=ExitReason.INTERNAL, error=str(error))
        else:
            await self._publishing.delivered(
                hold, url=url, branch=publication.branch, commit_sha=publication.commit_sha
            )

    async def _push_and_open(self, publication: Publication) -> str:
        """Push the commit and show it on the forge; the address of its page."""
        repository = parse_repository(publication.repository, allow_local=self._git.allow_local)
        metadata = CommitMetadata(
            publication.author_name,
            publication.author_email,
            int(publication.time.timestamp()),
            publication.message,
        )
        sha = await self._commits.commit_patch(repository, publication.base_sha, publication.patch, metadata)
        if sha != publication.commit_sha:
            raise PatchInexactError(f"made commit {sha} instead of {publication.commit_sha}; nothing was pushed")
        await push(
            self._git,
            self._mirrors.place(repository),
            repository,
            branch=publication.branch,
            commit_sha=sha,
            expected_remote_sha=publication.expected_remote_sha,
        )
        title, _, _ = publication.message.partition("\n")
        return await self._forge.open(
            PublishedChange(
                changeset_id=str(publication.hold.changeset_id),
                repository=repository,
                branch=publication.branch,
                base_branch=publication.base_branch or "",
                commit_sha=sha,
                title=title,
                body=_body(publication),
                draft=publication.is_draft,
            )
        )


def _body(publication: Publication) -> str:
    if publication.verified is False:
        return f"**The tests of this change did not pass.**\n\n{publication.summary}"
    return publication.summary


def _back_off(tries: int) -> timedelta:
    return timedelta(seconds=random.uniform(0.5, 1) * _BACKOFF_SECONDS * 2**tries)  # noqa: S311  jitter, not a secret
