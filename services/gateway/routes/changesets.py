"""Changesets: what runs deliver, listed and read; published later, and looked after on their forge."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from aiohttp import web

from services.contracts.changesets import CloseRequest, CommentRequest, MergeRequest, PostedComment, PublishRequest
from services.contracts.rest import Changeset, ChangesetPage
from services.contracts.words import ChangesetState
from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import gateway_of
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.problems import ProblemError
from services.gateway.query import ChangesetsQuery, NoQuery, read_id, read_query
from services.jobs.reading import ChangesetFilter

_NOT_SHOWN: Mapping[ChangesetState, str] = {
    ChangesetState.STORED: "it is stored only; publish it first",
    ChangesetState.QUEUED: "it is about to be published; try again when it is open",
    ChangesetState.PUSHING: "it is being published; try again when it is open",
    ChangesetState.FAILED: "it could not be published; publish it again first",
}


async def list_changesets(request: web.Request) -> web.StreamResponse:
    query = read_query(request, ChangesetsQuery)
    wanted = ChangesetFilter(state=query.state, job_id=query.job_id, run_id=query.run_id, repository=query.repository)
    reading = gateway_of(request).reading
    return json_response(
        request, await reading.changesets(request[CLIENT], wanted, limit=query.limit, cursor=query.cursor)
    )


async def get_changeset(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    return await _answer(request, read_id(request, "changeset"))


async def publish(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    changeset_id = read_id(request, "changeset")
    wanted, _ = await read_body(request, PublishRequest)
    await gateway_of(request).publishing.request(request[CLIENT], changeset_id, wanted.publish)
    return await _answer(request, changeset_id, status=202)


async def merge(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    wanted, _ = await read_body(request, MergeRequest)
    changeset_id = await _shown(request)
    await gateway_of(request).vcs.merge(str(changeset_id), wanted)
    return await _answer(request, changeset_id)


async def close(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    wanted, _ = await read_body(request, CloseRequest)
    changeset_id = await _shown(request)
    await gateway_of(request).vcs.close(str(changeset_id), wanted)
    return await _answer(request, changeset_id)


async def reopen(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    changeset_id = await _shown(request)
    await gateway_of(request).vcs.reopen(str(changeset_id))
    return await _answer(request, changeset_id)


async def comment(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    wanted, _ = await read_body(request, CommentRequest)
    changeset_id = await _shown(request)
    posted = await gateway_of(request).vcs.comment(str(changeset_id), wanted)
    return json_response(request, posted, status=201)


async def refresh(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    changeset_id = await _shown(request)
    await gateway_of(request).vcs.look_up(str(changeset_id))
    return await _answer(request, changeset_id)


async def _answer(request: web.Request, changeset_id: UUID, *, status: int = 200) -> web.StreamResponse:
    changeset = await gateway_of(request).reading.changeset(request[CLIENT], changeset_id)
    return json_response(request, changeset, status=status)


async def _shown(request: web.Request) -> UUID:
    """The id of the client's changeset that a forge shows. Raises ``NotFoundError``, ``ProblemError``: 409."""
    changeset_id = read_id(request, "changeset")
    changeset = await gateway_of(request).reading.changeset(request[CLIENT], changeset_id)
    if words := _NOT_SHOWN.get(changeset.state):
        raise ProblemError(409, f"no forge shows the changeset: {words}")
    return changeset_id


_AS_FOUND = (Answer(200, "the changeset, as the forge has it now", Changeset),)

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/changesets",
        name="listChangesets",
        summary="List changesets, newest first",
        handler=list_changesets,
        query=ChangesetsQuery,
        answers=(Answer(200, "a page of changesets", ChangesetPage),),
    ),
    Operation(
        method="GET",
        path="/v1/changesets/{id}",
        name="getChangeset",
        summary="Get a changeset",
        handler=get_changeset,
        answers=(Answer(200, "the changeset", Changeset),),
    ),
    Operation(
        method="POST",
        path="/v1/changesets/{id}/publish",
        name="publishChangeset",
        summary="Publish what was only stored, or could not be published, without running the model again",
        handler=publish,
        body=PublishRequest,
        answers=(Answer(202, "accepted; it is published soon", Changeset),),
    ),
    Operation(
        method="POST",
        path="/v1/changesets/{id}/merge",
        name="mergeChangeset",
        summary="Merge a changeset; one that is merged stays so",
        handler=merge,
        body=MergeRequest,
        answers=_AS_FOUND,
    ),
    Operation(
        method="POST",
        path="/v1/changesets/{id}/close",
        name="closeChangeset",
        summary="Close a changeset without merging it",
        handler=close,
        body=CloseRequest,
        answers=_AS_FOUND,
    ),
    Operation(
        method="POST",
        path="/v1/changesets/{id}/reopen",
        name="reopenChangeset",
        summary="Open a closed changeset again",
        handler=reopen,
        answers=_AS_FOUND,
    ),
    Operation(
        method="POST",
        path="/v1/changesets/{id}/comments",
        name="commentChangeset",
        summary="Comment on a changeset's pull request, or answer in the thread of a review comment",
        handler=comment,
        body=CommentRequest,
        answers=(Answer(201, "the comment", PostedComment),),
    ),
    Operation(
        method="POST",
        path="/v1/changesets/{id}/refresh",
        name="refreshChangeset",
        summary="Ask the forge now how the changeset is",
        handler=refresh,
        answers=_AS_FOUND,
    ),
)
