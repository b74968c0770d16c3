"""Changesets: what runs deliver, listed and read."""

from __future__ import annotations

from aiohttp import web

from services.contracts.rest import Changeset, ChangesetPage
from services.gateway.auth import CLIENT
from services.gateway.context import gateway_of
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.query import ChangesetsQuery, NoQuery, read_id, read_query
from services.jobs.reading import ChangesetFilter


async def list_changesets(request: web.Request) -> web.StreamResponse:
    query = read_query(request, ChangesetsQuery)
    wanted = ChangesetFilter(state=query.state, job_id=query.job_id, run_id=query.run_id, repository=query.repository)
    reading = gateway_of(request).reading
    return json_response(
        request, await reading.changesets(request[CLIENT], wanted, limit=query.limit, cursor=query.cursor)
    )


async def get_changeset(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    changeset_id = read_id(request, "changeset")
    return json_response(request, await gateway_of(request).reading.changeset(request[CLIENT], changeset_id))


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
)
