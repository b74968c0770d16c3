"""Changesets that remember what was asked of them and answer, or fail, as they are told."""

from typing import Any
from uuid import UUID

from services.contracts.words import Checks, Mergeable, MergeMethod, Review
from services.vcs.forges import ChangeState, ChangeStatus, PostedComment

MERGED = ChangeStatus(
    state=ChangeState.MERGED,
    url="https://forge.example/acme/demo/pull/7",
    number=7,
    is_draft=True,
    head_sha="a" * 40,
    checks=Checks.PASSING,
    review=Review.APPROVED,
    mergeable=Mergeable.NO,
    merge_sha="b" * 40,
)


class RecordedChangesets:
    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._error = error

    async def look_up(self, changeset_id: UUID) -> ChangeStatus:
        return self._answer("look_up", changeset_id)

    async def close(self, changeset_id: UUID, comment: str, *, delete_branch: bool) -> ChangeStatus:
        return self._answer("close", changeset_id, comment, delete_branch)

    async def reopen(self, changeset_id: UUID) -> ChangeStatus:
        return self._answer("reopen", changeset_id)

    async def merge(self, changeset_id: UUID, method: MergeMethod, *, delete_branch: bool) -> ChangeStatus:
        return self._answer("merge", changeset_id, method, delete_branch)

    async def comment(self, changeset_id: UUID, body: str, *, in_reply_to: str) -> PostedComment:
        self._answer("comment", changeset_id, body, in_reply_to)
        return PostedComment("11", "https://forge.example/c/11")

    def _answer(self, *asked: Any) -> ChangeStatus:
        self.asked.append(asked)
        if self._error is not None:
            raise self._error
        return MERGED
