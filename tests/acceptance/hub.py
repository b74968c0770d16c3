"""A GitHub for whole stacks, at one address: npm `emulate` for what it can, Git's own server for Git, and deliveries
that pass through here, so that they can be sent again.

Scripted, since the emulator has none of it: a pull request that is read as an issue or said something on, the
`in_reply_to` of a review comment, a commit's statuses, and check suites that end.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final
from uuid import uuid4

import aiohttp
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from quarterdeck.stack.ports import free_ports
from tests.acceptance.mirrored_git import MirroredGit
from tests.integration.vcs.github.emulated import TOKEN, USER, Emulate, Json, running_emulate
from tests.integration.vcs.github.faults import FaultProxy

HOST: Final = "127.0.0.1"
SECRET: Final = "it's a secret to everybody"
BOT: Final = USER
"""As whom the stack works there. Grace may push to every repository, Linus to none."""
_HOOK: Final = "/_hook/"
_EVENTS: Final = ["issues", "issue_comment", "pull_request", "pull_request_review_comment", "push"]
_HEADERS: Final = ("Content-Type", "X-GitHub-Event", "X-GitHub-Delivery", "X-Hub-Signature-256")
_CALL_SECONDS: Final = 30
_ISSUE: Final = re.compile(r"(?P<repository>/repos/[^/]+/[^/]+)/issues/(?P<number>\d+)")


@dataclass(frozen=True)
class Delivery:
    """``to``: the path of the gateway that it was sent to."""

    to: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    result: str | None
    """What the gateway answered; None: nothing, or an error."""

    @property
    def payload(self) -> Json:
        payload: Json = json.loads(self.body)
        return payload


class Hub(FaultProxy):
    """``gateway``: the address where deliveries go from here, to be set once it is known."""

    def __init__(self, emulate: Emulate, session: aiohttp.ClientSession, repositories: MirroredGit) -> None:
        super().__init__(emulate.address, session)
        self.emulate = emulate
        self.repositories = repositories
        self.gateway = ""
        self.deliveries: list[Delivery] = []
        self._hooks = session

    @property
    def variables(self) -> dict[str, str]:
        """What a stack is told that works here."""
        return {
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_API_URL": self.address,
            "GITHUB_SERVER_URL": self.address,
            "GITHUB_WEBHOOK_SECRET": SECRET,
            "QUARTERDECK_BOT_LOGIN": BOT,
            "QUARTERDECK_GIT_ALLOW_INSECURE_HTTP": "1",
            "QUARTERDECK_GIT_ALLOWED_REMOTES": HOST,
            "QUARTERDECK_FORGE_POLL_SECONDS": "3600",
        }

    async def make_repository(self, files: Mapping[str, str], *, hook: str | None) -> str:
        """Its full name. ``hook``: the path of the gateway that hears of it; None: nobody does."""
        name = await self.emulate.ada.make_repository()
        await self.repositories.begin(name, files, token=TOKEN)
        if hook is not None:
            await self._add_hook(name, hook)
        return name

    async def _add_hook(self, name: str, hook: str) -> None:
        config = {"url": f"{self.address}{_HOOK}{hook.strip('/')}", "content_type": "json", "secret": SECRET}
        described = {"name": "web", "events": _EVENTS, "config": config}
        await self.emulate.ada.ask("POST", f"/repos/{name}/hooks", described)

    async def deliver(self, to: str, event: str, payload: Json) -> str | None:
        """What GitHub would send, and the emulator does not; the `result` that is answered."""
        body = json.dumps(payload).encode()
        values = ("application/json", event, str(uuid4()), _signature(body))
        return await self._deliver(to, dict(zip(_HEADERS, values, strict=True)), body)

    async def deliver_again(self, delivery: Delivery) -> str | None:
        """As from GitHub's page."""
        return await self._deliver(delivery.to, delivery.headers, delivery.body)

    def delivered(self, repository: str, event: str, action: str) -> list[Delivery]:
        return [
            one
            for one in self.deliveries
            if one.headers["X-GitHub-Event"] == event
            and (one.payload.get("action"), one.payload["repository"]["full_name"]) == (action, repository)
        ]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith(_HOOK):
            return await self._pass_on(request)
        handle = self.repositories.handle if ".git/" in request.path else super().handle
        return await handle(request)

    async def _forwarded(self, request: web.Request, content: bytes) -> web.Response:
        if request.method == "GET" and request.path.endswith("/status"):
            return web.json_response({"state": "success", "total_count": 0, "statuses": []})
        if request.method == "POST" and request.path.endswith("/comments"):
            content = content.replace(b'"in_reply_to":', b'"in_reply_to_id":')
        answer = await super()._forwarded(request, content)
        place = _ISSUE.fullmatch(request.path)
        if request.method == "GET" and place and answer.status == HTTPStatus.NOT_FOUND:
            pull = await self._pull(place["repository"], int(place["number"]))
            return answer if pull is None else web.json_response({**pull, "pull_request": {"url": pull["url"]}})
        return answer

    async def _pull(self, repository: str, number: int) -> Json | None:
        pulls: list[Json] = await self.emulate.ada.ask("GET", f"{repository}/pulls", state="all", per_page="100")
        return next((pull for pull in pulls if pull["number"] == number), None)

    async def _pass_on(self, request: web.Request) -> web.Response:
        """The emulator's delivery; one about a pull request says so, as GitHub's does."""
        body = await request.read()
        headers = {name: request.headers[name] for name in _HEADERS}
        payload = json.loads(body)
        issue = payload.get("issue")
        if issue and await self._pull(f"/repos/{payload['repository']['full_name']}", issue["number"]):
            issue["pull_request"] = {"url": issue["url"]}
            body = json.dumps(payload).encode()
            headers["X-Hub-Signature-256"] = _signature(body)
        await self._deliver(request.path.removeprefix(_HOOK), headers, body)
        return web.Response()

    async def _deliver(self, to: str, headers: Mapping[str, str], body: bytes) -> str | None:
        result: str | None = None
        timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS)
        try:
            async with self._hooks.post(
                f"{self.gateway}/{to.strip('/')}", data=body, headers=headers, timeout=timeout
            ) as answer:
                result = (await answer.json()).get("result")
        except aiohttp.ClientConnectionError:
            result = None  # the gateway is away, which GitHub would note and leave at that
        self.deliveries.append(Delivery(to, headers, body, result))
        return result


def _signature(body: bytes) -> str:
    return f"sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}"


@asynccontextmanager
async def running_hub(folder: Path) -> AsyncIterator[Hub]:
    """``folder``: an empty one."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    (port,) = free_ports(1)
    address = f"http://{HOST}:{port}"
    async with running_emulate(pem, folder, shown_at=address) as emulate, aiohttp.ClientSession() as session:
        hub = Hub(emulate, session, MirroredGit(folder / "git", url=address, person=emulate.ada))
        hub.address = address
        app = web.Application(client_max_size=1024**3)
        app.router.add_route("*", "/{path:.*}", hub.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, port).start()
            yield hub
        finally:
            await runner.cleanup()
