"""Repositories that the forge has: looked for, and taken over under their own names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiohttp import web

from services.contracts.repositories import Discovery, ForgeRepository, Imported, ImportRequest
from services.contracts.v1.vcs_pb2 import ListRepositoriesRequest
from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import Gateway, gateway_of
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.query import DiscoverQuery, NoQuery, read_query


async def discover(request: web.Request) -> web.StreamResponse:
    query = read_query(request, DiscoverQuery)
    found = await gateway_of(request).vcs.discover(_search(query))
    return json_response(request, Discovery(items=found[: query.limit]))


async def take_over(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    gateway = gateway_of(request)
    wanted, _ = await read_body(request, ImportRequest)
    missing: list[str] = []
    if wanted.names is None:
        found = (await gateway.vcs.discover(_search(wanted)))[: wanted.limit]
    else:
        found = await _named(gateway, wanted.names)
        there = {each.full_name.casefold() for each in found}
        missing = [name for name in dict.fromkeys(wanted.names) if name.casefold() not in there]
    kept, skipped = await gateway.repositories.take_over(request[CLIENT], found)
    return json_response(request, Imported(imported=kept, skipped=skipped, missing=missing))


def _search(wanted: DiscoverQuery | ImportRequest) -> ListRepositoriesRequest:
    return ListRepositoriesRequest(
        owner=wanted.owner or "",
        patterns=wanted.match,
        topics=wanted.topic,
        search=wanted.q or "",
        include_archived=wanted.archived,
        include_forks=wanted.forks,
        limit=wanted.limit,
    )


async def _named(gateway: Gateway, names: Iterable[str]) -> list[ForgeRepository]:
    """Those of ``names`` that the forge has: asked for by owner, since a name alone is nothing to look for."""
    by_owner: dict[str, dict[str, str]] = {}
    for name in names:
        by_owner.setdefault(name.partition("/")[0].casefold(), {})[name.casefold()] = name
    answers = await asyncio.gather(*(gateway.vcs.discover(_of_owner([*each.values()])) for each in by_owner.values()))
    wanted_names = {name for wanted in by_owner.values() for name in wanted}
    return [each for answer in answers for each in answer if each.full_name.casefold() in wanted_names]


def _of_owner(names: list[str]) -> ListRepositoriesRequest:
    return ListRepositoriesRequest(
        owner=names[0].partition("/")[0],
        patterns=names,
        include_archived=True,
        include_forks=True,
        limit=len(names),
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/repositories/discover",
        name="discoverRepositories",
        summary="Look for repositories on the forge, among those that the server may see",
        handler=discover,
        query=DiscoverQuery,
        answers=(Answer(200, "what was found", Discovery),),
    ),
    Operation(
        method="POST",
        path="/v1/repositories/import",
        name="importRepositories",
        summary="Keep repositories of the forge under their own names, where they are not kept yet",
        handler=take_over,
        body=ImportRequest,
        answers=(Answer(200, "what was taken over, and what was not", Imported),),
    ),
)
