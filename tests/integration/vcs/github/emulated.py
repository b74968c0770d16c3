"""npm `emulate`: a GitHub that others wrote, as a process; and what somebody with an account does there."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from quarterdeck.stack.ports import free_ports
from tests.integration.npm import NODE, installed

HOST: Final = "127.0.0.1"
ORG: Final = "acme"
USER: Final = "ada"
TOKEN: Final = "ghp_of_ada"
OTHER_TOKEN: Final = "ghp_of_grace"
APP_ID: Final = 77
INSTALLATIONS: Final = {ORG: 100, USER: 101}

_PROJECT: Final = Path(__file__).parent / "emulate"
_START_SECONDS: Final = 60
_CALL_SECONDS: Final = 30
_POLL_SECONDS: Final = 0.05
Json = dict[str, Any]


class Person:
    """Somebody at work on GitHub, with a token: past the forge, and past the faults in front of it."""

    def __init__(self, address: str, session: aiohttp.ClientSession, token: str) -> None:
        self._address = address
        self._session = session
        self._headers = {"Authorization": f"token {token}"}

    async def ask(self, method: str, path: str, body: Json | None = None, **params: str) -> Any:
        timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS)
        async with self._session.request(
            method, self._address + path, json=body, params=params, headers=self._headers, timeout=timeout
        ) as response:
            text = await response.text()
            assert response.ok, f"{method} {path} answered {response.status}: {text}"
            return json.loads(text) if text else None

    async def make_repository(self, **described: Any) -> str:
        """One of the organization's with a first commit on main, where grace may push; its full name."""
        name = f"app-{secrets.token_hex(4)}"
        await self.ask("POST", f"/orgs/{ORG}/repos", {"name": name, "auto_init": True, **described})
        await self.ask("PUT", f"/repos/{ORG}/{name}/collaborators/grace", {"permission": "push"})
        return f"{ORG}/{name}"

    async def push(self, repository: str, branch: str, *, base: str = "main") -> str:
        """A commit on ``branch``, which begins at ``base`` where it is new; the SHA."""
        if not await self.sha_of(repository, branch):
            at = await self.sha_of(repository, base)
            await self.ask("POST", f"/repos/{repository}/git/refs", {"ref": f"refs/heads/{branch}", "sha": at})
        content = {
            "message": "Change",
            "branch": branch,
            "content": base64.b64encode(secrets.token_bytes(8)).decode(),
        }
        path = f"/repos/{repository}/contents/file-{secrets.token_hex(4)}"
        sha: str = (await self.ask("PUT", path, content))["commit"]["sha"]
        return sha

    async def sha_of(self, repository: str, branch: str) -> str:
        found = await self.ask("GET", f"/repos/{repository}/git/matching-refs/heads/{branch}")
        return next((ref["object"]["sha"] for ref in found if ref["ref"] == f"refs/heads/{branch}"), "")

    async def pulls(self, repository: str) -> list[Json]:
        """Every pull request there ever was."""
        found: list[Json] = await self.ask("GET", f"/repos/{repository}/pulls", state="all", per_page="100")
        return found

    async def pull(self, repository: str, number: int) -> Json:
        pull: Json = await self.ask("GET", f"/repos/{repository}/pulls/{number}")
        return pull

    async def comments(self, repository: str, number: int) -> list[Json]:
        found: list[Json] = await self.ask("GET", f"/repos/{repository}/issues/{number}/comments")
        return found

    async def review(self, repository: str, number: int, event: str) -> None:
        await self.ask("POST", f"/repos/{repository}/pulls/{number}/reviews", {"event": event, "body": "So I think."})

    async def check(self, repository: str, sha: str, name: str, conclusion: str | None) -> None:
        """A check run at ``sha``; without a conclusion it goes on."""
        ended = {"status": "completed", "conclusion": conclusion} if conclusion else {"status": "in_progress"}
        await self.ask("POST", f"/repos/{repository}/check-runs", {"name": name, "head_sha": sha, **ended})


class Emulate:
    """``app_key``: of the App that is installed for the organization and for the user."""

    def __init__(self, address: str, session: aiohttp.ClientSession, app_key: str) -> None:
        self.address = address
        self.app_key = app_key
        self.ada = Person(address, session, TOKEN)
        self.grace = Person(address, session, OTHER_TOKEN)

    async def tokens_made(self) -> list[int]:
        """The installation of each installation token, in the order of their making."""
        made = (await self.ada.ask("GET", "/_emulate/installation-tokens"))["installation_tokens"]
        return [one["installation"]["id"] for one in made]


def seed(app_key: str) -> Json:
    scopes = ["repo", "user", "admin:org"]
    # Whoever shows an unknown token is taken to be the first user: that must be nobody.
    logins = ["nobody", USER, "grace", "linus"]
    permissions = dict.fromkeys(("contents", "issues", "pull_requests", "checks", "metadata"), "write")
    installations = [{"installation_id": number, "account": account} for account, number in INSTALLATIONS.items()]
    app = {"app_id": APP_ID, "slug": "quarterdeck", "name": "Quarterdeck", "private_key": app_key}
    return {
        "tokens": {TOKEN: {"login": USER, "scopes": scopes}, OTHER_TOKEN: {"login": "grace", "scopes": scopes}},
        "github": {
            "users": [{"login": login} for login in logins],
            "orgs": [{"login": ORG, "members": [{"login": USER, "role": "admin"}]}],
            "repos": [
                {"owner": USER, "name": "tools", "topics": ["cli", "python"], "language": "Python"},
                {"owner": USER, "name": "site", "topics": ["web"]},
                {"owner": USER, "name": "secret", "private": True},
            ],
            "apps": [{**app, "permissions": permissions, "installations": installations}],
        },
    }


@asynccontextmanager
async def running_emulate(app_key: str, scratch: Path, *, shown_at: str | None = None) -> AsyncIterator[Emulate]:
    """``scratch``: an empty folder. ``shown_at``: the address that its answers and deliveries name; None: its own."""
    seed_file = scratch / "seed.json"
    seed_file.write_text(json.dumps(seed(app_key)))
    (port,) = free_ports(1)
    script = installed(_PROJECT) / "node_modules" / "emulate" / "dist" / "index.js"
    flags = ["--service", "github", "--host", HOST, "--port", str(port), "--seed", str(seed_file)]
    flags += ["--base-url", shown_at] if shown_at else []
    async with _running([str(NODE), str(script), "start", *flags], scratch), aiohttp.ClientSession() as session:
        emulate = Emulate(f"http://{HOST}:{port}", session, app_key)
        await _until_up(emulate)
        yield emulate


@asynccontextmanager
async def _running(command: Sequence[str], folder: Path) -> AsyncIterator[None]:
    """A process that is killed at the end: it keeps nothing."""
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            yield
        except BaseException:
            output.seek(0)
            print(output.read().decode(errors="replace"))  # noqa: T201  pytest shows it on failure
            raise
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _until_up(emulate: Emulate) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                await emulate.ada.ask("GET", "/user")
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return
