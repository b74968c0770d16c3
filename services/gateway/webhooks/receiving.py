"""Takes deliveries of GitHub's webhook: what is signed is kept, answered 200, and done afterwards.

What fails then is no business of the one who delivers: GitHub is not to send it again.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

import orjson
from aiohttp import web

from services.gateway.body import read_bytes
from services.gateway.problems import ProblemError
from services.gateway.webhooks.inbox import Inbox
from services.gateway.webhooks.payloads import Payload
from services.gateway.webhooks.rules import Rules, Surface
from services.gateway.webhooks.secrets import WebhookSecrets
from services.gateway.webhooks.signatures import is_signature, is_signed
from services.jobs.deliveries import Deliveries
from services.runtime.telemetry import logger

log = logger("gateway.webhooks")

MAX_BYTES: Final = 25 * 1024**2
"""As GitHub sends them at most."""
_DELIVERY: Final = re.compile(r"[A-Za-z0-9-]{1,100}")
_EVENT: Final = re.compile(r"[a-z0-9_]{1,100}")
_FORM: Final = "application/x-www-form-urlencoded"
_NOT_JSON: Final = "the body is not valid JSON; send what GitHub sends, as application/json"
_NOT_SET_UP: Final = (
    "no webhook is set up here: set GITHUB_WEBHOOK_SECRET for the gateway, or set a GitHub App up with this server"
)


@dataclass(frozen=True)
class Receiving:
    secrets: WebhookSecrets
    deliveries: Deliveries
    rules: Rules
    inbox: Inbox

    async def receive(self, request: web.Request, surface: Surface) -> web.StreamResponse:
        """Raises ``ProblemError``: 400 for what is no JSON object, 401 unless it is signed, 404 where none can be."""
        body = await self._signed(request)
        delivery = _header(request, "X-GitHub-Delivery", _DELIVERY, surface) or hashlib.sha256(body).hexdigest()
        event = _header(request, "X-GitHub-Event", _EVENT, surface)
        payload = _payload(body, request.content_type)
        is_nothing = self.rules.wanted_by(surface, event, payload).is_nothing
        kept = None if is_nothing else orjson.dumps(payload)
        is_new = await self.deliveries.keep(surface.name, delivery, event, kept)
        self.inbox.ring()
        result = _result(is_new=is_new, is_nothing=is_nothing)
        log.info("webhook", surface=surface.name, event_name=event, delivery=delivery, result=result)
        return web.json_response({"result": result})

    async def _signed(self, request: web.Request) -> bytes:
        secrets = await self.secrets.known()
        if not secrets:
            raise ProblemError(404, _NOT_SET_UP)
        signature = request.headers.get("X-Hub-Signature-256", "")
        # Looked at before the body is: whoever has no secret is not to have 25 MiB read.
        body = await read_bytes(request.clone(client_max_size=MAX_BYTES)) if is_signature(signature) else b""
        if not any([is_signed(body, signature, secret) for secret in secrets]):  # noqa: C419  as long for every secret
            raise ProblemError(401, "X-Hub-Signature-256: is missing, or not made with the secret of this webhook")
        return body


def _result(*, is_new: bool, is_nothing: bool) -> str:
    if is_nothing:
        return "nothing to do"
    return "taken" if is_new else "seen before"


def _header(request: web.Request, name: str, form: re.Pattern[str], surface: Surface) -> str:
    value = request.headers.get(name, "")
    if not value and not surface.asks_for_headers:
        return ""
    if not form.fullmatch(value):
        raise ProblemError(400, f"{name}: is missing or malformed; GitHub sends it with every delivery")
    return value


def _payload(body: bytes, content_type: str) -> Payload:
    try:
        payload = orjson.loads(_in_form(body) if content_type == _FORM else body)
    except ValueError as error:
        raise ProblemError(400, _NOT_JSON) from error
    if not isinstance(payload, dict):
        raise ProblemError(400, "the body must be a JSON object")
    return payload


def _in_form(body: bytes) -> str:
    """What GitHub sends where a form was chosen as the content type. Raises ``ValueError``."""
    fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=1, errors="strict")
    return fields.get("payload", [""])[0]
