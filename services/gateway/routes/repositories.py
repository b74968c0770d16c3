"""The repositories that a client keeps: named, changed, and their mirrors looked at and fetched."""

from __future__ import annotations

from aiohttp import web

from services.contracts.repositories import (
    Mirror,
    Repository,
    RepositoryChange,
    RepositoryPage,
    RepositoryRegistration,
    RepositoryStatus,
    Sync,
    SyncState,
)
from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import gateway_of
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.query import NoQuery, RepositoriesQuery, read_id, read_query
from services.gateway.vcs_problems import VcsUnavailableError


async def add_repository(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    wanted, _ = await read_body(request, RepositoryRegistration)
    made = await gateway_of(request).repositories.add(request[CLIENT], wanted)
    return json_response(request, made, status=201, headers={"Location": f"/v1/repositories/{made.id}"})


async def list_repositories(request: web.Request) -> web.StreamResponse:
    query = read_query(request, RepositoriesQuery)
    page = await gateway_of(request).repositories.page(
        request[CLIENT], name=query.name, limit=query.limit, cursor=query.cursor
    )
    return json_response(request, page)


async def get_repository(request: web.Request) -> web.StreamResponse:
    """With its mirrors; where no vcs node can be asked, with the reason in their place."""
    read_query(request, NoQuery)
    gateway, repository_id = gateway_of(request), read_id(request, "repository")
    repository = await gateway.repositories.one(request[CLIENT], repository_id)
    mirrors: list[Mirror] = []
    error: str | None = None
    try:
        mirrors = await _own_work_alone(request, await gateway.vcs.mirrors(repository.url))
    except VcsUnavailableError as unavailable:
        error = unavailable.detail
    return json_response(request, RepositoryStatus(**dict(repository), mirrors=mirrors, mirrors_error=error))


async def _own_work_alone(request: web.Request, mirrors: list[Mirror]) -> list[Mirror]:
    """A mirror is shared by all clients: what was rescued of others' runs is not to be told."""
    runs = {work.run_id for mirror in mirrors for work in mirror.rescued}
    own = await gateway_of(request).repositories.own_runs(request[CLIENT], runs) if runs else set()
    return [
        mirror.model_copy(update={"rescued": [work for work in mirror.rescued if work.run_id in own]})
        for mirror in mirrors
    ]


async def change_repository(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    repository_id = read_id(request, "repository")
    wanted, _ = await read_body(request, RepositoryChange)
    return json_response(request, await gateway_of(request).repositories.change(request[CLIENT], repository_id, wanted))


async def remove_repository(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    repository_id = read_id(request, "repository")
    return json_response(request, await gateway_of(request).repositories.remove(request[CLIENT], repository_id))


async def sync(request: web.Request) -> web.StreamResponse:
    return await _fetch(request, clone=False)


async def clone(request: web.Request) -> web.StreamResponse:
    return await _fetch(request, clone=True)


async def _fetch(request: web.Request, *, clone: bool) -> web.StreamResponse:
    read_query(request, NoQuery)
    gateway, repository_id = gateway_of(request), read_id(request, "repository")
    repository = await gateway.repositories.one(request[CLIENT], repository_id)
    nodes = await gateway.vcs.sync(repository.url, clone=clone)
    goes_on = any(node.state is SyncState.RUNNING for node in nodes)
    return json_response(request, Sync(repository_id=repository.id, nodes=nodes), status=202 if goes_on else 200)


_FETCHED = (
    Answer(200, "what each vcs node came to", Sync),
    Answer(202, "some are still at it, and go on: ask again for their end", Sync),
)

OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/repositories",
        name="addRepository",
        summary="Keep a repository under a name of one's own",
        handler=add_repository,
        body=RepositoryRegistration,
        answers=(Answer(201, "the repository", Repository, headers=("Location",)),),
    ),
    Operation(
        method="GET",
        path="/v1/repositories",
        name="listRepositories",
        summary="List one's repositories by name",
        handler=list_repositories,
        query=RepositoriesQuery,
        answers=(Answer(200, "a page of repositories", RepositoryPage),),
    ),
    Operation(
        method="GET",
        path="/v1/repositories/{id}",
        name="getRepository",
        summary="Get a repository, and what each vcs node says of its mirror",
        handler=get_repository,
        answers=(Answer(200, "the repository", RepositoryStatus),),
    ),
    Operation(
        method="PATCH",
        path="/v1/repositories/{id}",
        name="changeRepository",
        summary="Change what is named of a repository, and nothing else",
        handler=change_repository,
        body=RepositoryChange,
        answers=(Answer(200, "the repository as it is now", Repository),),
    ),
    Operation(
        method="DELETE",
        path="/v1/repositories/{id}",
        name="removeRepository",
        summary="Forget a repository; its jobs, changesets and mirrors stay",
        handler=remove_repository,
        answers=(Answer(200, "what it was", Repository),),
    ),
    Operation(
        method="POST",
        path="/v1/repositories/{id}/sync",
        name="syncRepository",
        summary="Bring the mirrors of a repository up to date, on every vcs node that has one",
        handler=sync,
        answers=_FETCHED,
    ),
    Operation(
        method="POST",
        path="/v1/repositories/{id}/clone",
        name="cloneRepository",
        summary="Mirror a repository on every vcs node, or bring its mirror up to date",
        handler=clone,
        answers=_FETCHED,
    ),
)
