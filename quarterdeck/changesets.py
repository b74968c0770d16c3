"""The part of the client that looks after what runs deliver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from quarterdeck.connection import Connection, Id, filters_of, json_bytes, parsed, segment
from services.contracts.changesets import PostedComment
from services.contracts.rest import Changeset, ChangesetPage
from services.contracts.words import ChangesetState, MergeMethod, Publish


class Changesets(Connection):
    """Changes are sent once: look at the changeset where no answer came."""

    def changesets(
        self,
        *,
        state: ChangesetState | str | None = None,
        repository: str | None = None,
        job_id: Id | None = None,
        run_id: Id | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Changeset]:
        """Changesets from the newest on."""
        filters = filters_of(state=state, repository=repository, jobId=job_id, runId=run_id)
        return self._items(partial(parsed, ChangesetPage), "/v1/changesets", filters, limit)

    async def changeset(self, changeset_id: Id) -> Changeset:
        return parsed(Changeset, await self._transport.get(_path(changeset_id)))

    async def publish_changeset(self, changeset_id: Id, publish: Publish | str | None = None) -> Changeset:
        """Publish what was only stored, or could not be published; it is queued, and published soon after.

        ``publish``: default: as its job asked, else as a pull request. Raises ConflictError where it cannot be.
        """
        body = {"publish": str(publish)} if publish is not None else {}
        return await self._changed(changeset_id, "publish", body)

    async def merge_changeset(
        self,
        changeset_id: Id,
        *,
        method: MergeMethod | str = MergeMethod.MERGE,
        delete_branch: bool = False,
    ) -> Changeset:
        """Raises ConflictError, with the forge's words, where it cannot be merged."""
        return await self._changed(changeset_id, "merge", {"method": str(method), "deleteBranch": delete_branch})

    async def close_changeset(
        self, changeset_id: Id, *, comment: str | None = None, delete_branch: bool = False
    ) -> Changeset:
        """Close it without merging. ``comment``: posted before. Raises ConflictError."""
        said = {"comment": comment} if comment is not None else {}
        return await self._changed(changeset_id, "close", {**said, "deleteBranch": delete_branch})

    async def reopen_changeset(self, changeset_id: Id) -> Changeset:
        """Raises ConflictError where the forge does not let it be opened again."""
        return parsed(Changeset, await self._transport.post_once(_path(changeset_id, "reopen")))

    async def comment_changeset(self, changeset_id: Id, body: str, *, in_reply_to: str | None = None) -> PostedComment:
        """``in_reply_to``: the forge's id of a review comment, to answer in its thread."""
        reply = {"inReplyTo": in_reply_to} if in_reply_to is not None else {}
        content = json_bytes({"body": body, **reply})
        return parsed(PostedComment, await self._transport.send_once("POST", _path(changeset_id, "comments"), content))

    async def refresh_changeset(self, changeset_id: Id) -> Changeset:
        """How it is on its forge, asked now."""
        return parsed(Changeset, await self._transport.post_once(_path(changeset_id, "refresh")))

    async def _changed(self, changeset_id: Id, action: str, body: dict[str, Any]) -> Changeset:
        path = _path(changeset_id, action)
        return parsed(Changeset, await self._transport.send_once("POST", path, json_bytes(body)))


def _path(changeset_id: Id, action: str = "") -> str:
    return f"/v1/changesets/{segment(changeset_id)}{f'/{action}' if action else ''}"
