"""Clients and their API keys, for operators; and what a client's own key says of it."""

from __future__ import annotations

from aiohttp import web

from services.contracts.clients import Client, ClientPage, ClientRequest, ClientWithKey
from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import gateway_of
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.query import ClientsQuery, NoQuery, read_id, read_query

_KEPT_NOWHERE = {"Cache-Control": "no-store"}


async def get_me(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    return json_response(request, await gateway_of(request).clients.me(request[CLIENT]))


async def add_client(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    wanted, _ = await read_body(request, ClientRequest)
    made = await gateway_of(request).clients.add(request[CLIENT], wanted)
    headers = {"Location": f"/v1/clients/{made.id}", **_KEPT_NOWHERE}
    return json_response(request, made, status=201, headers=headers)


async def list_clients(request: web.Request) -> web.StreamResponse:
    query = read_query(request, ClientsQuery)
    page = await gateway_of(request).clients.page(
        request[CLIENT], name=query.name, limit=query.limit, cursor=query.cursor
    )
    return json_response(request, page)


async def get_client(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    client_id = read_id(request, "client")
    return json_response(request, await gateway_of(request).clients.one(request[CLIENT], client_id))


async def replace_key(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    gateway, client_id = gateway_of(request), read_id(request, "client")
    changed = await gateway.clients.replace_key(request[CLIENT], client_id)
    gateway.authenticator.forget(client_id)
    return json_response(request, changed, headers=_KEPT_NOWHERE)


async def disable_client(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    gateway, client_id = gateway_of(request), read_id(request, "client")
    disabled = await gateway.clients.disable(request[CLIENT], client_id)
    gateway.authenticator.forget(client_id)
    return json_response(request, disabled)


OPERATIONS = (
    # Before the one that takes an id in the same place.
    Operation(
        method="GET",
        path="/v1/clients/me",
        name="getMe",
        summary="Get the client that this key is of",
        handler=get_me,
        answers=(Answer(200, "the client", Client),),
    ),
    Operation(
        method="POST",
        path="/v1/clients",
        name="addClient",
        summary="Make a client; for operators",
        handler=add_client,
        body=ClientRequest,
        answers=(
            Answer(201, "the client with its key, which is shown here alone", ClientWithKey, headers=("Location",)),
        ),
    ),
    Operation(
        method="GET",
        path="/v1/clients",
        name="listClients",
        summary="List clients by name; for operators",
        handler=list_clients,
        query=ClientsQuery,
        answers=(Answer(200, "a page of clients", ClientPage),),
    ),
    Operation(
        method="GET",
        path="/v1/clients/{id}",
        name="getClient",
        summary="Get a client; for operators",
        handler=get_client,
        answers=(Answer(200, "the client", Client),),
    ),
    Operation(
        method="POST",
        path="/v1/clients/{id}/key",
        name="replaceClientKey",
        summary="Give a client a new key: the old one opens nothing any more, at the latest 10 s later; for operators",
        handler=replace_key,
        answers=(Answer(200, "the client with its key, which is shown here alone", ClientWithKey),),
    ),
    Operation(
        method="DELETE",
        path="/v1/clients/{id}",
        name="disableClient",
        summary="Disable a client: its key opens nothing any more, its jobs stay and go on; for operators",
        handler=disable_client,
        answers=(Answer(200, "the client, disabled", Client),),
    ),
)
