"""Git over HTTP whose pushes are made on the emulated GitHub too, which serves no Git: the same commits, by SHA."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from quarterdeck.demo.git import blobs, commit_all, git, line, tree
from tests.integration.git_server import GitServer
from tests.integration.vcs.github.emulated import Person

_HEADS: Final = "refs/heads/"
_IDENTITY: Final = re.compile(r"(?P<name>.*) <(?P<email>.*)> (?P<seconds>\d+) \+0000")


@dataclass
class MirroredGit(GitServer):
    """``person``: who makes on the emulated half what is pushed here. Files in folders are not mirrored."""

    person: Person = field(kw_only=True)
    _mirrored: dict[str, set[str]] = field(default_factory=dict)
    """Commits, by repository."""

    async def begin(self, name: str, files: Mapping[str, str], *, token: str) -> None:
        """The emulated half's repository gets one here, with a commit of ``files`` on main. ``token``: who may come."""
        await asyncio.to_thread(_begin, self.root, name, files)
        self.tokens[name] = token
        await self._mirror(name)

    def run(self, name: str, *words: str) -> str:
        """What Git prints of a repository."""
        return git(*words, folder=self._bare(name)).decode()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        answer = await super().handle(request)
        if request.path.endswith("/git-receive-pack"):
            await self._mirror(request.path.partition(".git/")[0].strip("/"))
        return answer

    def _bare(self, name: str) -> Path:
        return self.root / f"{name}.git"

    async def _mirror(self, name: str) -> None:
        known = self._mirrored.setdefault(name, set())
        heads = await asyncio.to_thread(self.run, name, "for-each-ref", "--format=%(refname) %(objectname)", _HEADS)
        for ref, sha in (each.split(" ") for each in heads.splitlines()):
            for commit in (await asyncio.to_thread(self.run, name, "rev-list", "--reverse", sha)).split():
                if commit not in known:
                    await self._mirror_commit(name, commit)
                    known.add(commit)
            there = await self.person.sha_of(name, ref.removeprefix(_HEADS))
            if not there:
                await self.person.ask("POST", f"/repos/{name}/git/refs", {"ref": ref, "sha": sha})
            elif there != sha:
                await self.person.ask("PATCH", f"/repos/{name}/git/{ref}", {"sha": sha, "force": True})

    async def _mirror_commit(self, name: str, sha: str) -> None:
        files, described = await asyncio.to_thread(_commit, self._bare(name), sha)
        tree_sha = (await self.person.ask("POST", f"/repos/{name}/git/trees", {"tree": files}))["sha"]
        made = await self.person.ask("POST", f"/repos/{name}/git/commits", {"tree": tree_sha, **described})
        assert made["sha"] == sha, "the two halves do not agree on a commit"


def _begin(root: Path, name: str, files: Mapping[str, str]) -> None:
    folder, bare = root / f"{name}-files", root / f"{name}.git"
    folder.mkdir(parents=True)
    for path, content in files.items():
        (folder / path).write_text(content)
    commit_all(folder, bare, "base")
    line("config", "http.receivepack", "true", folder=bare)


def _commit(bare: Path, sha: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Its files and the rest of it, as GitHub's API takes them."""
    entries = tree(bare, sha)
    contents = blobs(bare, [entry.blob for entry in entries.values()])
    files = [
        {"path": path, "mode": entry.mode, "type": "blob", "content": contents[entry.blob].decode()}
        for path, entry in entries.items()
    ]
    head, _, message = git("cat-file", "commit", sha, folder=bare).decode().partition("\n\n")
    fields = [each.split(" ", 1) for each in head.splitlines()]
    who = {role: _identity(value) for role, value in fields if role in ("author", "committer")}
    return files, {"message": message, "parents": [value for key, value in fields if key == "parent"], **who}


def _identity(text: str) -> dict[str, str]:
    found = _IDENTITY.fullmatch(text)
    assert found is not None, text
    date = datetime.fromtimestamp(int(found["seconds"]), UTC)
    return {"name": found["name"], "email": found["email"], "date": date.isoformat()}
