"""Carries out publications: makes the commit again, pushes it, opens it on the forge, records it. Killed at any
instant, the next claim lands on the same branch with the same commit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Final, assert_never
from uuid import UUID

from google.protobuf.message import DecodeError
from nats.errors import Error as NatsError

from services.contracts import subjects
from services.contracts.templates import fill, values_of
from services.contracts.v1.commands_pb2 import PublishOrder
from services.contracts.words import ExitReason, Queue
from services.jobs.errors import LeaseLostError
from services.jobs.heartbeat import Ending, Heartbeat
from services.jobs.publishing import DuePublication, Publication, Publishing, Shown
from services.runtime.backing_off import back_off
from services.runtime.jetstream import Bus, Message
from services.runtime.lifecycle import Capacity
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger
from services.vcs.acting import Hands, HandsOf
from services.vcs.errors import (
    CloneFailedError,
    ForgeError,
    ForgePausedError,
    PatchInexactError,
    PushRejectedError,
    RefRefusedError,
    RepositoryRefusedError,
    VcsError,
)
from services.vcs.forges import PublishedChange
from services.vcs.git.push import push
from services.vcs.git.repositories import Repository, parse_repository
from services.vcs.git.trees import CommitMetadata
from services.vcs.mirrors.reach import Reach
from services.vcs.worktrees.commits import Commits

log = logger("vcs.publisher")

MAX_TRIES: Final = 10
"""With what lies between them half an hour: for so long a forge may be away."""
MOST_CLAIMS: Final = 20
"""Of one publication: so many vcs that stopped over it did so because of it."""
_FIRST_DELAY_SECONDS: Final = 4.0
_LONGEST_DELAY_SECONDS: Final = 1_024.0


class Publisher:
    def __init__(
        self,
        *,
        publishing: Publishing,
        heartbeat: Heartbeat,
        bus: Bus,
        commits: Commits,
        hands: HandsOf,
        observe_after: Callable[[str], timedelta],
        holder: str,
        most: int,
    ) -> None:
        """``hands``: as whom each is pushed and shown. ``observe_after``: when a forge of that name is asked about what
        it shows. ``holder``: this process's node name. ``most``: publications at once.
        """
        self._publishing = publishing
        self._heartbeat = heartbeat
        self._bus = bus
        self._commits = commits
        self._hands = hands
        self._observe_after = observe_after
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
        order = _order(message)
        claimed_at = time.monotonic()
        try:
            publication = await self._claim(order) if order is not None else None
        except StoreUnavailableError:
            return  # not acknowledged: it comes again
        with suppress(NatsError, OSError):  # not heard: it comes again, and is found stale
            await message.ack()
        if publication is not None:
            await self._publish_leased(publication, claimed_at)

    async def _claim(self, order: DuePublication) -> Publication | None:
        return await self._publishing.claim(
            order.changeset_id, order.run_id, dispatch=order.dispatch, holder=self._holder
        )

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
            _refuse_deadly(publication)
            shown = await self._push_and_open(publication)
        except ForgePausedError as error:
            log.info("publication waits for its forge", run=str(hold.run_id), error=str(error))
            await self._publishing.postpone(hold, error=str(error), delay=timedelta(seconds=error.seconds))
        except VcsError as error:
            await self._fail_or_retry(publication, error)
        except (LeaseLostError, StoreUnavailableError):
            raise
        except Exception as error:
            # A disk that is full, or a bug: left to its lease it would be tried for ever, and nobody be told.
            log.exception("publication failed unexpectedly", run=str(hold.run_id))
            words = f"{type(error).__name__}: {error}"
            await self._fail_or_retry(publication, VcsError(words, retryable=True))
        else:
            await self._publishing.delivered(hold, shown, branch=publication.branch, commit_sha=publication.commit_sha)

    async def _fail_or_retry(self, publication: Publication, error: VcsError) -> None:
        hold = publication.hold
        if error.retryable and publication.tries < MAX_TRIES:
            log.warning("publication will be tried again", run=str(hold.run_id), error=str(error))
            await self._publishing.retry(hold, error=str(error), delay=_delay(publication.tries))
        else:
            await self._publishing.failed(hold, reason=_reason(error), error=str(error))

    async def _push_and_open(self, publication: Publication) -> Shown:
        """Push the commit and show it on the forge."""
        async with self._hands.of_changeset(publication.hold.changeset_id) as hands:
            return await self._push_and_open_with(hands, publication)

    async def _push_and_open_with(self, hands: Hands, publication: Publication) -> Shown:
        repository = parse_repository(publication.repository, allow_local=hands.reach.git.allow_local)
        metadata = CommitMetadata(
            publication.author_name,
            publication.author_email,
            int(publication.time.timestamp()),
            publication.message,
        )
        async with hands.reach.mirrors.using(repository):  # no run of ours may hold it any more
            await self._push(hands.reach, publication, repository, metadata)
        forge = hands.forges.of(repository)
        opened = await forge.open(_change(publication, repository))
        return Shown(forge.name, opened.url, opened.number, self._observe_after(forge.name), opened.notes)

    async def _push(
        self, reach: Reach, publication: Publication, repository: Repository, metadata: CommitMetadata
    ) -> None:
        commits = self._commits.through(reach)
        sha = await commits.commit_patch(repository, publication.base_sha, publication.patch, metadata)
        if sha != publication.commit_sha:
            raise PatchInexactError(f"made commit {sha} instead of {publication.commit_sha}; nothing was pushed")
        await push(
            reach.git,
            reach.mirrors.place(repository),
            repository,
            branch=publication.branch,
            commit_sha=sha,
            expected_remote_sha=publication.expected_remote_sha,
            also_ours=publication.also_ours,
        )


def _order(message: Message) -> DuePublication | None:
    """What ``message`` orders; None where it is no publish order: it would come again for ever."""
    try:
        order = PublishOrder.FromString(message.data)
        return DuePublication(UUID(order.changeset_id), UUID(order.run_id), order.dispatch)
    except (DecodeError, ValueError):
        log.exception("not a publish order, thrown away", subject=message.subject)
        return None


def _refuse_deadly(publication: Publication) -> None:
    if publication.tries > MOST_CLAIMS:
        words = (
            f"the vcs service stopped {MOST_CLAIMS} times while it published this; see its log, then publish it again"
        )
        raise VcsError(words)


def _change(publication: Publication, repository: Repository) -> PublishedChange:
    asked = publication.options.pull_request
    values = values_of(
        name=publication.name,
        prompt=publication.prompt,
        repository=publication.repository,
        branch=publication.branch,
        job_id=publication.hold.job_id,
        run_id=publication.hold.run_id,
    )
    title, _, _ = publication.message.partition("\n")
    return PublishedChange(
        changeset_id=str(publication.hold.changeset_id),
        repository=repository,
        branch=publication.branch,
        base_branch=publication.base_branch or "",
        commit_sha=publication.commit_sha,
        title=fill(asked.title, values) if asked.title else title,
        body=_body(publication, asked.body, values),
        publish=publication.publish,
        labels=asked.labels,
        reviewers=asked.reviewers,
        team_reviewers=asked.team_reviewers,
        assignees=asked.assignees,
        keeps_words=publication.is_review,
    )


def _body(publication: Publication, template: str | None, values: Mapping[str, str]) -> str:
    body = fill(template, {**values, "summary": publication.summary}) if template else publication.summary
    return f"**The tests of this change did not pass.**\n\n{body}" if publication.verified is False else body


def _reason(error: VcsError) -> ExitReason:
    match error:
        case ForgeError():
            return ExitReason.FORGE_REJECTED
        case PushRejectedError() | CloneFailedError() | RepositoryRefusedError() | RefRefusedError():
            return ExitReason.PUSH_REJECTED
        case _:
            return ExitReason.INTERNAL


def _delay(tries: int) -> timedelta:
    return back_off(tries, first_seconds=_FIRST_DELAY_SECONDS, longest_seconds=_LONGEST_DELAY_SECONDS)
