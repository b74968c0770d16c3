"""What is done to a changeset once a forge shows it, and what the forge says of it: both are recorded in Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from services.contracts.words import ChangesetState, MergeMethod
from services.jobs.errors import NotFoundError
from services.jobs.tracking import Observed, TrackedChange, Tracking
from services.runtime.telemetry import logger
from services.vcs.acting import HandsOf
from services.vcs.errors import ForgeNotFoundError, ForgeRefusedError
from services.vcs.forges import ChangeRef, ChangeState, ChangeStatus, Forge, PostedComment
from services.vcs.git.repositories import parse_repository

log = logger("vcs.changesets")

_LOCAL_EVERY = timedelta(minutes=10)
"""Nothing on the local forge changes without us, but for what people merge by hand."""


class Changesets:
    """Every method raises the ``ForgeError``s of ``services.vcs.errors``, ``CredentialsError`` where those of the
    changeset's job cannot be opened, and ``StoreUnavailableError``.
    """

    def __init__(self, tracking: Tracking, hands: HandsOf, *, every: timedelta, allow_local: bool) -> None:
        """``hands``: as whom a forge is asked. ``every``: how often one with an account is, about an open changeset."""
        self._tracking = tracking
        self._hands = hands
        self._every = every
        self._allow_local = allow_local

    def observe_after(self, forge: str) -> timedelta:
        """How long after a look at a changeset the next one is due."""
        return _LOCAL_EVERY if forge == "local" else self._every

    async def look_up(self, changeset_id: UUID) -> ChangeStatus:
        return await self.observe(await self._published(changeset_id))

    async def observe(self, change: TrackedChange) -> ChangeStatus:
        """Ask the forge and record the answer; close the changeset where that was asked for."""
        if change.close_comment is not None and change.state is ChangesetState.OPEN:
            return await self._retire(change, change.close_comment)
        async with self._forge(change) as forge:
            status = await forge.look_up(self._ref(change))
        return await self._record(change, _kept_closed(change, status))

    async def close(self, changeset_id: UUID, comment: str, *, delete_branch: bool) -> ChangeStatus:
        """``comment``: posted once; empty: none."""
        return await self._close(await self._published(changeset_id), comment, delete_branch=delete_branch)

    async def reopen(self, changeset_id: UUID) -> ChangeStatus:
        change = await self._published(changeset_id)
        async with self._forge(change) as forge:
            reopened = await forge.reopen(self._ref(change))
        return await self._record(change, reopened)

    async def merge(self, changeset_id: UUID, method: MergeMethod, *, delete_branch: bool) -> ChangeStatus:
        change = await self._published(changeset_id)
        async with self._forge(change) as forge:
            merged = await forge.merge(self._ref(change), method, delete_branch=delete_branch)
        return await self._record(change, merged)

    async def comment(self, changeset_id: UUID, body: str, *, in_reply_to: str) -> PostedComment:
        change = await self._published(changeset_id)
        async with self._forge(change) as forge:
            return await forge.comment(self._ref(change), body, in_reply_to=in_reply_to)

    async def _retire(self, change: TrackedChange, comment: str) -> ChangeStatus:
        """A branch that somebody has added to stays: what is stale is closed all the same."""
        try:
            return await self._close(change, comment, delete_branch=change.deletes_branch)
        except ForgeRefusedError as error:
            if not change.deletes_branch:
                raise
            log.warning("a branch was left", changeset=str(change.id), branch=change.branch, error=str(error))
            return await self._close(change, comment, delete_branch=False)

    async def _close(self, change: TrackedChange, comment: str, *, delete_branch: bool) -> ChangeStatus:
        async with self._forge(change) as forge:
            status = await forge.close(self._ref(change), comment=comment, delete_branch=delete_branch)
        return await self._record(change, status)

    async def _published(self, changeset_id: UUID) -> TrackedChange:
        try:
            return await self._tracking.published(changeset_id)
        except NotFoundError as error:
            words = f"changeset {changeset_id} is shown on no forge: publish it first"
            raise ForgeNotFoundError(words) from error

    async def _record(self, change: TrackedChange, status: ChangeStatus) -> ChangeStatus:
        observed = Observed(
            state=ChangesetState(status.state.value),
            url=status.url,
            number=status.number,
            is_draft=status.is_draft,
            head_sha=status.head_sha,
            checks=status.checks,
            review=status.review,
            mergeable=status.mergeable,
            merge_sha=status.merge_sha,
        )
        await self._tracking.record(change, observed, again=self.observe_after(change.forge))
        return status

    @asynccontextmanager
    async def _forge(self, change: TrackedChange) -> AsyncIterator[Forge]:
        async with self._hands.of_changeset(change.id) as hands:
            yield hands.forges.named(change.forge)

    def _ref(self, change: TrackedChange) -> ChangeRef:
        return ChangeRef(
            changeset_id=str(change.id),
            repository=parse_repository(change.repository, allow_local=self._allow_local),
            branch=change.branch,
            base_branch=change.base_branch,
            commit_sha=change.commit_sha,
            number=change.number,
            url=change.url,
        )


def _kept_closed(change: TrackedChange, status: ChangeStatus) -> ChangeStatus:
    """On the local forge only Postgres knows that a changeset was closed: Git has no such state."""
    is_closed = change.forge == "local" and change.state is ChangesetState.CLOSED
    return replace(status, state=ChangeState.CLOSED) if is_closed and status.state is ChangeState.OPEN else status
