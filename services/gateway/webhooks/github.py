"""`POST /webhooks/github`: GitHub says that something changed, and the forge is asked about it at once.

Nothing that a delivery says is believed but where to look: a lost or a forged one changes no state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson
from aiohttp import web
from pydantic import SecretStr

from services.gateway.body import read_bytes
from services.gateway.problems import ProblemError
from services.gateway.webhooks.signatures import is_signature, is_signed
from services.gateway.webhooks.subjects import Concerned, concerned_by
from services.jobs.tracking import Tracking
from services.runtime.telemetry import logger

log = logger("gateway.webhooks")

PATH = "/webhooks/github"
MAX_BYTES = 25 * 1024**2
"""As GitHub sends them at most."""
_SOURCE = "github"
_DELIVERY = re.compile(r"[A-Za-z0-9-]{1,100}")
_EVENT = re.compile(r"[a-z_]{1,100}")


@dataclass(frozen=True)
class GitHubWebhook:
    """``secret``: None: no webhook is set up, and its address is nowhere."""

    tracking: Tracking
    secret: SecretStr | None

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """Answers 200 to every delivery with a good signature, also to what is of no interest or was seen before."""
        if self.secret is None:
            raise ProblemError(404, "no webhook is set up here: set GITHUB_WEBHOOK_SECRET for the gateway")
        signature = request.headers.get("X-Hub-Signature-256", "")
        # Looked at before the body is: whoever has no secret is not to have 25 MiB read.
        body = await read_bytes(request.clone(client_max_size=MAX_BYTES)) if is_signature(signature) else b""
        if not is_signed(body, signature, self.secret.get_secret_value()):
            raise ProblemError(401, "X-Hub-Signature-256: is missing, or not made with the secret of this webhook")
        delivery = _header(request, "X-GitHub-Delivery", _DELIVERY)
        event = _header(request, "X-GitHub-Event", _EVENT)
        payload = _payload(body)
        woken = await self._wake(concerned_by(event, payload))
        # Only now: what could not be done before must not be taken for done when the delivery comes again.
        is_new = await self.tracking.remember_delivery(_SOURCE, delivery, event)
        log.info("webhook", event_name=event, delivery=delivery, changesets=woken, is_new=is_new)
        return web.json_response({"result": "taken" if woken else "nothing to do"})

    async def _wake(self, concerned: Concerned) -> int:
        if concerned.is_nothing:
            return 0
        return await self.tracking.wake(
            _SOURCE,
            concerned.repository,
            numbers=concerned.numbers,
            branches=concerned.branches,
            shas=concerned.shas,
        )


def _header(request: web.Request, name: str, form: re.Pattern[str]) -> str:
    value = request.headers.get(name, "")
    if not form.fullmatch(value):
        raise ProblemError(400, f"{name}: is missing or malformed; GitHub sends it with every delivery")
    return value


def _payload(body: bytes) -> dict[str, object]:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ProblemError(400, "the body is not valid JSON; choose the content type application/json") from error
    if not isinstance(payload, dict):
        raise ProblemError(400, "the body must be a JSON object")
    return payload
