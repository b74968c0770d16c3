"""The endpoints of clients and their repositories: customers of the client that this API acts as."""

from __future__ import annotations

from aiohttp import web

from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import gateway_of
from services.gateway.dialects.dialect import LooseQuery
from services.gateway.dialects.orchestrator.fetching import Fetching, each
from services.gateway.dialects.orchestrator.models import (
    AddRepository,
    Client,
    ClientList,
    Cloned,
    ClonedAll,
    CreateClient,
    KeptRepository,
    ListedClient,
    Repository,
    Synced,
)
from services.gateway.dialects.orchestrator.settings import OrchestratorSettings
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.problems import FieldProblemError
from services.gateway.query import read_id, read_query
from services.jobs import customers as domain
from services.jobs.clients import NameTakenError
from services.jobs.repositories import RefusedUrlError


class ClientRoutes:
    def __init__(self, settings: OrchestratorSettings) -> None:
        self._server_url = settings.server_url

    async def list_clients(self, request: web.Request) -> web.StreamResponse:
        read_query(request, LooseQuery)
        found = await gateway_of(request).customers.all(request[CLIENT])
        clients = [ListedClient(id=one.id, name=one.name, repositories=_repositories(one)) for one in found]
        return json_response(request, ClientList(clients=clients))

    async def get_client(self, request: web.Request) -> web.StreamResponse:
        read_query(request, LooseQuery)
        found = await gateway_of(request).customers.one(request[CLIENT], read_id(request, "client"))
        return json_response(request, _client(found))

    async def create_client(self, request: web.Request) -> web.StreamResponse:
        read_query(request, LooseQuery)
        wanted, _ = await read_body(request, CreateClient)
        try:
            made = await gateway_of(request).customers.add(request[CLIENT], wanted.name, customer_id=wanted.id)
        except domain.IdTakenError as error:
            raise FieldProblemError("id", str(error)) from error
        return json_response(request, _client(made), status=201)

    async def add_repository(self, request: web.Request) -> web.StreamResponse:
        read_query(request, LooseQuery)
        client_id = read_id(request, "client")
        wanted, _ = await read_body(request, AddRepository)
        full_name = f"{wanted.github_org}/{wanted.github_repo}"
        url = wanted.clone_url or f"{self._server_url}/{full_name}.git"
        customers = gateway_of(request).customers
        try:
            made = await customers.add_repository(
                request[CLIENT], client_id, full_name, url, base_ref=wanted.default_branch
            )
        except NameTakenError as error:
            raise FieldProblemError("githubRepo", f"the client has {full_name} already") from error
        except RefusedUrlError as error:
            raise FieldProblemError("cloneUrl", str(error).removeprefix("url: ")) from error
        answer = KeptRepository(**dict(_repository(made)), client_id=client_id, clone_url=made.url)
        return json_response(request, answer, status=201)

    async def sync(self, request: web.Request) -> web.StreamResponse:
        read_query(request, LooseQuery)
        kept = await gateway_of(request).customers.repositories(request[CLIENT])
        return json_response(request, Synced(synced=await each(kept, Fetching(gateway_of(request).vcs).sync)))

    async def clone_all(self, request: web.Request) -> web.StreamResponse:
        read_query(request, LooseQuery)
        kept = await gateway_of(request).customers.repositories(request[CLIENT])
        return json_response(request, ClonedAll(cloned=await each(kept, Fetching(gateway_of(request).vcs).clone)))

    async def clone(self, request: web.Request) -> web.StreamResponse:
        read_query(request, LooseQuery)
        repository_id = read_id(request, "repository")
        kept = await gateway_of(request).customers.repository(request[CLIENT], repository_id)
        return json_response(request, await Fetching(gateway_of(request).vcs).clone(kept))


def _client(found: domain.Customer) -> Client:
    repositories = _repositories(found)
    first = repositories[0] if repositories else None
    return Client(id=found.id, name=found.name, repository=first, repositories=repositories)


def _repositories(found: domain.Customer) -> list[Repository]:
    return [_repository(kept) for kept in found.repositories]


def _repository(kept: domain.KeptRepository) -> Repository:
    return Repository(id=kept.id, owner_name=kept.owner, repo_name=kept.name, default_branch=kept.base_ref)


def operations(routes: ClientRoutes) -> tuple[Operation, ...]:
    return (*_of_clients(routes), *_of_mirrors(routes))


def _of_clients(routes: ClientRoutes) -> tuple[Operation, ...]:
    return (
        Operation(
            method="GET",
            path="/clients",
            name="listClients",
            summary="List all clients with their repositories",
            handler=routes.list_clients,
            query=LooseQuery,
            answers=(Answer(200, "the clients", ClientList),),
        ),
        Operation(
            method="POST",
            path="/clients",
            name="createClient",
            summary="Add a client, under an id of its own where it has one",
            handler=routes.create_client,
            query=LooseQuery,
            body=CreateClient,
            answers=(Answer(201, "the client", Client),),
        ),
        Operation(
            method="GET",
            path="/clients/{id}",
            name="getClient",
            summary="Get a specific client with their repository",
            handler=routes.get_client,
            query=LooseQuery,
            answers=(Answer(200, "the client", Client),),
        ),
        Operation(
            method="POST",
            path="/clients/{id}/repository",
            name="addRepository",
            summary="Add a GitHub repository to a client",
            handler=routes.add_repository,
            query=LooseQuery,
            body=AddRepository,
            answers=(Answer(201, "the repository", KeptRepository),),
        ),
    )


def _of_mirrors(routes: ClientRoutes) -> tuple[Operation, ...]:
    return (
        Operation(
            method="POST",
            path="/sync",
            name="syncRepositories",
            summary="Fetch latest from origin for all repositories",
            handler=routes.sync,
            query=LooseQuery,
            answers=(Answer(200, "what came of each", Synced),),
        ),
        Operation(
            method="POST",
            path="/repos/clone",
            name="cloneRepositories",
            summary="Clone all repositories from the database",
            handler=routes.clone_all,
            query=LooseQuery,
            answers=(Answer(200, "what came of each", ClonedAll),),
        ),
        Operation(
            method="POST",
            path="/repos/{id}/clone",
            name="cloneRepository",
            summary="Clone a specific repository by ID",
            handler=routes.clone,
            query=LooseQuery,
            answers=(Answer(200, "what came of it", Cloned),),
        ),
    )
