"""The webhook as an operation of a published API: who may call it is proven by its signature alone."""

from __future__ import annotations

from functools import partial
from typing import Literal

from aiohttp import web
from pydantic import BaseModel

from services.gateway.context import gateway_of
from services.gateway.operations import Answer, Header, Operation
from services.gateway.query import Query


class Taken(BaseModel):
    result: Literal["taken", "seen before", "nothing to do"]


async def _receive(request: web.Request, surface: str) -> web.StreamResponse:
    return await gateway_of(request).webhook.receive(request, surface)


def webhook_operation(surface: str, path: str, query: type[Query]) -> Operation:
    """``surface``: whose rules hold here, by name."""
    return Operation(
        method="POST",
        path=path,
        name="receiveGitHubWebhook",
        summary="Take a delivery of GitHub's webhook; what it asks for is done afterwards",
        handler=partial(_receive, surface=surface),
        query=query,
        headers=(
            Header("X-Hub-Signature-256", "`sha256=` and the HMAC of the body, with the secret of the webhook"),
            Header("X-GitHub-Event", "what happened"),
            Header("X-GitHub-Delivery", "the delivery's id; one that was seen before starts nothing"),
        ),
        is_public=True,
        answers=(Answer(200, "taken, whatever it is about", Taken),),
    )
