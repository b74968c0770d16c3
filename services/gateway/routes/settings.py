"""A client's own settings: what its runs take where their job says nothing. Secrets go in and never out."""

from __future__ import annotations

from aiohttp import web

from services.contracts.agents import ClientSettings, KeyRequest
from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import gateway_of
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.query import NoQuery, read_query


async def get_settings(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    return json_response(request, await gateway_of(request).client_settings.read(request[CLIENT]))


async def put_settings(request: web.Request) -> web.StreamResponse:
    """In force for runs that are claimed from now on."""
    read_query(request, NoQuery)
    wanted, _ = await read_body(request, ClientSettings)
    return json_response(request, await gateway_of(request).client_settings.replace(request[CLIENT], wanted))


async def delete_settings(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    return json_response(request, await gateway_of(request).client_settings.remove(request[CLIENT]))


async def put_key(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    wanted, _ = await read_body(request, KeyRequest)
    key = wanted.anthropic_api_key.get_secret_value()
    return json_response(request, await gateway_of(request).client_settings.set_key(request[CLIENT], key))


async def delete_key(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    return json_response(request, await gateway_of(request).client_settings.set_key(request[CLIENT], None))


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/settings",
        name="getSettings",
        summary="Get one's own settings",
        handler=get_settings,
        answers=(Answer(200, "the settings, secrets as `(set)`", ClientSettings),),
    ),
    Operation(
        method="PUT",
        path="/v1/settings",
        name="putSettings",
        summary="Replace one's own settings, but for the key; a secret given as `(set)` stays as it is stored",
        handler=put_settings,
        body=ClientSettings,
        answers=(Answer(200, "the settings that are in force now", ClientSettings),),
    ),
    Operation(
        method="DELETE",
        path="/v1/settings",
        name="deleteSettings",
        summary="Take all of one's own settings away, secrets and key included",
        handler=delete_settings,
        answers=(Answer(200, "what is left: nothing", ClientSettings),),
    ),
    Operation(
        method="PUT",
        path="/v1/settings/anthropic-key",
        name="putAnthropicKey",
        summary="Store the key that one's own runs use the model service with; kept encrypted",
        handler=put_key,
        body=KeyRequest,
        answers=(Answer(200, "the settings that are in force now", ClientSettings),),
    ),
    Operation(
        method="DELETE",
        path="/v1/settings/anthropic-key",
        name="deleteAnthropicKey",
        summary="Take that key away",
        handler=delete_key,
        answers=(Answer(200, "the settings that are in force now", ClientSettings),),
    ),
)
