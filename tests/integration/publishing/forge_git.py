"""The Git half of the GitHub of these tests: what is pushed here is at once on the emulated half too, which serves no
Git. Its faults are a repository's own, so that many may be tried side by side.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.integration.git_server import DEADLINE_SECONDS, HOST, Fault, GitServer
from tests.integration.publishing.made import AUTHOR, EMAIL, TIME, Made, Workshop
from tests.integration.vcs.conftest import git
from tests.integration.vcs.github.emulated import Person

_TEMPLATE: Final = "template"
LIST: Final = "POST ls-refs"
FETCH: Final = "POST git-upload-pack"
PUSH: Final = "POST git-receive-pack"
ASK_TO_PUSH: Final = "GET git-receive-pack"


@dataclass
class Planned:
    """``what``: the request that it befalls, one of the constants above."""

    name: str
    what: str
    fault: Fault
    times: int


@dataclass
class ForgeGit(GitServer):
    workshop: Workshop = field(kw_only=True)
    person: Person = field(kw_only=True)
    planned: list[Planned] = field(default_factory=list)
    shown: dict[str, dict[str, str]] = field(default_factory=dict)
    """What the emulated half knows: branches and their commits, by repository."""
    asked: dict[tuple[str, str], int] = field(default_factory=dict)
    """How often each request of a repository was made."""

    async def open(self, name: str, *, token: str, is_shown: bool = True) -> None:
        """A repository with the base on main. ``is_shown``: on the emulated half too, where it must exist."""
        template = self.root / f"{_TEMPLATE}.git"
        if not template.exists():
            self.create(_TEMPLATE)
            git(self.workshop.bare, "push", "--quiet", str(template), f"{self.workshop.base.sha}:refs/heads/main")
            git(template, "config", "receive.advertisePushOptions", "false")
        await asyncio.to_thread(shutil.copytree, template, self.root / f"{name}.git")
        self.tokens[name] = token
        if is_shown:
            await self._show(name, "main", self.workshop.base.sha, is_new=False)
            self.shown[name] = {"main": self.workshop.base.sha}

    def plan(self, name: str, what: str, fault: Fault, *, times: int = 1) -> None:
        self.planned.append(Planned(name, what, fault, times))

    def count(self, name: str, what: str) -> int:
        return self.asked.get((name, what), 0)

    def branches(self, name: str) -> dict[str, str]:
        lines = git(self.root / f"{name}.git", "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads")
        return dict(line.split(" ") for line in lines.splitlines())

    def commits_above_base(self, name: str, branch: str) -> list[str]:
        return git(self.root / f"{name}.git", "rev-list", f"main..{branch}").split()

    def put(self, name: str, branch: str, made: Made) -> None:
        """Somebody's push, past everything of ours."""
        git(self.workshop.bare, "push", "--quiet", str(self.root / f"{name}.git"), f"+{made.sha}:refs/heads/{branch}")

    def delete(self, name: str, branch: str) -> None:
        """Somebody's, as ``put``."""
        git(self.root / f"{name}.git", "update-ref", "-d", f"refs/heads/{branch}")

    async def show(self, name: str) -> None:
        """Have the emulated half know what was put here."""
        await self._show_all(name)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = request.path.partition(".git/")[0].strip("/")
        what = await _what(request)
        self.asked[name, what] = self.count(name, what) + 1
        self.fault = self._taken(name, what)  # read before anybody else's turn comes
        return await super().handle(request)

    def _taken(self, name: str, what: str) -> Fault | None:
        for planned in self.planned:
            if planned.times > 0 and (planned.name, planned.what) == (name, what):
                planned.times -= 1
                return planned.fault
        return None

    async def _run_backend(self, request: web.Request, login: str) -> tuple[int, dict[str, str], bytes]:
        answer = await super()._run_backend(request, login)
        name = request.path.partition(".git/")[0].strip("/")
        if request.path.endswith("/git-receive-pack") and name in self.shown:
            await self._show_all(name)
        return answer

    async def _show_all(self, name: str) -> None:
        shown = self.shown[name]
        for branch, sha in (await self._heads(name)).items():
            if shown.get(branch) != sha:
                await self._show(name, branch, sha, is_new=not await self.person.sha_of(name, branch))
                shown[branch] = sha

    async def _heads(self, name: str) -> dict[str, str]:
        """``branches``, from within the loop that serves."""
        process = await asyncio.create_subprocess_exec(
            *("git", "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads"),
            cwd=self.root / f"{name}.git",
            env={"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
        return dict(line.split(" ") for line in output.decode().splitlines())

    async def _show(self, name: str, branch: str, sha: str, *, is_new: bool) -> None:
        """Make the same commit on the emulated half, and let the branch be there."""
        made = self.workshop.made[sha]
        entries = [
            {"path": path, "mode": "100644", "type": "blob", "content": text} for path, text in made.files.items()
        ]
        tree = (await self.person.ask("POST", f"/repos/{name}/git/trees", {"tree": entries}))["sha"]
        who = {"name": AUTHOR, "email": EMAIL, "date": TIME.isoformat()}
        described = {"message": made.message, "tree": tree, "author": who, "committer": who}
        parents = [made.parent] if made.parent else []
        answer = await self.person.ask("POST", f"/repos/{name}/git/commits", {**described, "parents": parents})
        assert answer["sha"] == sha, "the two halves do not agree on a commit"
        if is_new:
            await self.person.ask("POST", f"/repos/{name}/git/refs", {"ref": f"refs/heads/{branch}", "sha": sha})
        else:
            path = f"/repos/{name}/git/refs/heads/{branch}"
            await self.person.ask("PATCH", path, {"sha": sha, "force": True})


async def _what(request: web.Request) -> str:
    """Which of the constants above a request is."""
    if b"command=ls-refs" in await request.read():
        return LIST
    service = request.query.get("service") or request.path.rpartition("/")[2]
    return f"{request.method} {service}"


@asynccontextmanager
async def forge_git(root: Path, workshop: Workshop, person: Person) -> AsyncIterator[ForgeGit]:
    """On a free port, for as long as the context is open."""
    server = ForgeGit(root, workshop=workshop, person=person)
    app = web.Application(client_max_size=1024**3)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        server.url = f"http://{HOST}:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
