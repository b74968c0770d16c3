"""Git LFS: pointers unless asked for; asked for, contents for reading that never count as changes of ours."""

import base64
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from services.vcs.errors import CloneFailedError
from services.vcs.git.addresses import AllowedRemotes, RemoteAccess
from services.vcs.git.credentials import Credential, StaticCredentials
from services.vcs.git.repositories import parse_repository
from services.vcs.git.runner import Git
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.worktrees.checkouts import CheckoutOptions
from services.vcs.worktrees.lfs import LfsRefusedError, LfsUnavailableError
from services.vcs.worktrees.worktrees import Worktrees
from tests.integration.git_server import HOST, GitServer
from tests.integration.vcs.conftest import METADATA, Node, Remote, content, git

ASKED = CheckoutOptions(lfs=True)
CONTENT = bytes(range(256)) * 400
OTHER = b"text of another one\n"
needs_program = pytest.mark.skipif(
    shutil.which("git-lfs") is None, reason="the program git-lfs is not installed; install the package git-lfs"
)


@pytest.fixture
def assets(remote: Remote) -> Remote:
    """Two files in Git LFS, and one that only looks like a pointer."""
    git(remote.work, "lfs", "install", "--local", "--skip-repo")
    git(remote.work, "config", "core.hooksPath", os.devnull)
    remote.commit({".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n"})
    remote.commit({"assets/big.bin": CONTENT, "assets/other.bin": OTHER, "assets/notes.txt": "notes\n"})
    git(remote.work, "lfs", "push", "--all", f"file://{remote.bare}")
    pointer = git(remote.work, "show", "HEAD:assets/big.bin")
    remote.commit({"docs/pointer-example.txt": f"{pointer}\n"})
    return remote


@needs_program
async def test_files_are_left_as_pointers_unless_asked_for(node: Node, assets: Remote) -> None:
    path = (await node.worktrees.prepare("run", 1, assets.repository)).path
    assert (path / "assets/big.bin").read_bytes().startswith(b"version https://git-lfs")
    assert not (node.mirrors.place(assets.repository).git_dir / "lfs").exists()


@pytest.fixture
async def worktree(node: Node, assets: Remote) -> Path:
    return (await node.worktrees.prepare("run", 1, assets.repository, checkout=ASKED)).path


@needs_program
async def test_contents_are_there_and_are_no_change(node: Node, worktree: Path) -> None:
    assert (worktree / "assets/big.bin").read_bytes() == CONTENT
    assert (worktree / "assets/other.bin").read_bytes() == OTHER
    assert (worktree / "docs/pointer-example.txt").read_bytes().startswith(b"version")
    for _ in range(2):
        assert (await node.worktrees.checkpoint("run", 1)).patch == b""
    os.utime(worktree / "assets/big.bin")
    assert (await node.worktrees.checkpoint("run", 1)).patch == b"", "touched, not changed"
    (worktree / "assets/notes.txt").write_text("changed\n")
    committed = await node.commits.commit_worktree("run", 1, METADATA)
    assert [file.path for file in committed.files] == [b"assets/notes.txt"]


@needs_program
async def test_contents_are_fetched_once(node: Node, assets: Remote, worktree: Path) -> None:
    fetches = node.git.count("lfs")
    assert fetches == 1
    shutil.rmtree(assets.bare / "lfs")
    again = await node.worktrees.prepare("again", 1, assets.repository, checkout=ASKED)
    assert content(again.path) == content(worktree)
    assert node.git.count("lfs") == fetches


@needs_program
@pytest.mark.parametrize("how", ["written", "executable", "moved", "new"])
async def test_a_changed_one_is_refused_by_name_and_kept_by_checkpoints(
    make_node: Callable[[str], Node], node: Node, assets: Remote, worktree: Path, how: str
) -> None:
    big = worktree / "assets/big.bin"
    name = {"moved": "src/moved.bin", "new": "src/new.bin"}.get(how, "assets/big.bin")
    if how == "written":
        big.write_bytes(CONTENT[::-1])
    elif how == "executable":
        big.chmod(0o755)
    elif how == "moved":
        big.rename(worktree / name)
    else:
        (worktree / name).write_bytes(b"new\n")
    with pytest.raises(LfsRefusedError, match=rf"'{name}' is kept in Git LFS.* cannot be delivered"):
        await node.commits.commit_worktree("run", 1, METADATA)
    saved = await node.worktrees.checkpoint("run", 1)
    other = make_node("other")
    base = git(assets.work, "rev-parse", "HEAD")
    restored = await other.worktrees.prepare(
        "run", 2, assets.repository, base_sha=base, patch=saved.patch, checkout=ASKED
    )
    assert content(restored.path) == content(worktree)
    assert (await other.worktrees.checkpoint("run", 2)).patch == saved.patch


@needs_program
async def test_deleting_one_can_be_delivered(node: Node, worktree: Path) -> None:
    (worktree / "assets/big.bin").unlink()
    committed = await node.commits.commit_worktree("run", 1, METADATA)
    assert [(file.path, file.change) for file in committed.files] == [(b"assets/big.bin", "deleted")]
    for anew in (False, True, False):
        if anew:
            (worktree / "README.md").unlink()
            os.mkfifo(worktree / "README.md")
        await node.worktrees.restore("run", 1, committed.patch)
        assert (await node.worktrees.checkpoint("run", 1)).patch == committed.patch
        assert (worktree / "assets/other.bin").read_bytes() == OTHER
    await node.worktrees.restore("run", 1, b"")
    assert (worktree / "assets/big.bin").read_bytes() == CONTENT
    assert (await node.worktrees.checkpoint("run", 1)).patch == b""


@needs_program
async def test_restoring_puts_contents_back(node: Node, worktree: Path, tmp_path: Path) -> None:
    before = content(worktree)
    (tmp_path / "outside").write_text("kept\n")
    (worktree / "assets/other.bin").unlink()
    (worktree / "assets/other.bin").symlink_to(tmp_path / "outside")
    (worktree / "assets/big.bin").write_text("tests were here\n")
    for _ in range(2):
        await node.worktrees.restore("run", 1, b"")
        assert content(worktree) == before
        assert (await node.worktrees.checkpoint("run", 1)).patch == b""
    assert (tmp_path / "outside").read_text() == "kept\n"


@needs_program
async def test_a_worktree_made_anew_has_contents_too(node: Node, worktree: Path) -> None:
    before = content(worktree)
    (worktree / "README.md").unlink()
    os.mkfifo(worktree / "README.md")
    await node.worktrees.restore("run", 1, b"")
    assert content(worktree) == before
    assert (await node.worktrees.checkpoint("run", 1)).patch == b""


@needs_program
async def test_only_what_a_sparse_folder_needs_is_fetched(node: Node, assets: Remote) -> None:
    (assets.work / "other").mkdir()
    assets.commit({"other/only.bin": b"only this\n"})
    git(assets.work, "lfs", "push", "--all", f"file://{assets.bare}")
    options = CheckoutOptions(path="other", lfs=True)
    path = (await node.worktrees.prepare("run", 1, assets.repository, checkout=options)).path
    assert (path / "other/only.bin").read_bytes() == b"only this\n"
    assert (await node.worktrees.checkpoint("run", 1)).patch == b""
    cached = node.mirrors.place(assets.repository).git_dir / "lfs/objects"
    assert len([file for file in cached.rglob("*") if file.is_file()]) == 1


@needs_program
async def test_content_that_the_remote_has_not_is_a_failed_clone(node: Node, assets: Remote) -> None:
    shutil.rmtree(assets.bare / "lfs")
    with pytest.raises(CloneFailedError):
        await node.worktrees.prepare("run", 1, assets.repository, checkout=ASKED)
    assert node.leftovers() == []


@needs_program
async def test_configuration_in_the_repository_names_no_other_server(node: Node, assets: Remote) -> None:
    assets.commit({".lfsconfig": "[lfs]\n\turl = http://127.0.0.1:9/elsewhere\n"})
    path = (await node.worktrees.prepare("run", 1, assets.repository, checkout=ASKED)).path
    assert (path / "assets/big.bin").read_bytes() == CONTENT


class LfsServer(GitServer):
    """A Git server that also speaks the batch API of Git LFS, under the same token."""

    def __init__(self, root: Path, contents: dict[str, bytes]) -> None:
        super().__init__(root)
        self.contents = contents

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/content/"):
            return web.Response(body=self.contents[request.match_info["path"].rpartition("/")[2]])
        if not request.path.endswith("/info/lfs/objects/batch"):
            return await super().handle(request)
        if not request.headers.get("Authorization"):
            return web.Response(status=401, headers={"LFS-Authenticate": 'Basic realm="lfs"'})
        login = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        self.logins.append(f"lfs {login}")
        asked = (await request.json())["objects"]
        links = [entry | {"actions": {"download": {"href": f"{self.url}/content/{entry['oid']}"}}} for entry in asked]
        answer = orjson.dumps({"transfer": "basic", "objects": links})
        return web.Response(body=answer, content_type="application/vnd.git-lfs+json")


@pytest.fixture
async def lfs_server(assets: Remote, tmp_path: Path) -> AsyncIterator[LfsServer]:
    """Holds `acme/assets`, a copy of the remote, behind a token."""
    stored = (assets.bare / "lfs/objects").rglob("*")
    server = LfsServer(tmp_path / "served", {file.name: file.read_bytes() for file in stored if file.is_file()})
    bare = server.create("acme/assets", token="s3cret-token")
    git(assets.work, "push", "--quiet", str(bare), "HEAD:refs/heads/main")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    server.url = f"http://{HOST}:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@needs_program
async def test_contents_come_over_http_with_the_credentials_of_the_host(lfs_server: LfsServer, tmp_path: Path) -> None:
    access = RemoteAccess(AllowedRemotes.parse(lfs_server.authority), allow_insecure_http=True)
    credentials = StaticCredentials({lfs_server.authority: Credential("robot", "s3cret-token")})
    runner = Git(tmp_path / "home", remotes=access, credentials=credentials)
    worktrees = Worktrees(tmp_path / "node", Mirrors(tmp_path / "node", runner), runner)
    repository = parse_repository(lfs_server.address("acme/assets"), allow_local=False)
    ready = await worktrees.prepare("run", 1, repository, checkout=ASKED)
    assert (ready.path / "assets/big.bin").read_bytes() == CONTENT
    assert "lfs robot:s3cret-token" in lfs_server.logins
    written = (file.read_bytes() for file in (tmp_path / "node").rglob("*") if file.is_file())
    assert not any(b"s3cret" in data for data in written)


async def test_without_the_program_asking_for_it_says_what_to_install(
    node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LfsUnavailableError, match="install the package git-lfs"):
        await node.worktrees.prepare("run", 1, remote.repository, checkout=ASKED)
    assert node.git.commands == []


async def test_it_is_asked_for_only_where_whoever_runs_the_service_lets_it(node: Node, remote: Remote) -> None:
    worktrees = Worktrees(node.root, node.mirrors, node.git, allow_lfs=False)
    with pytest.raises(LfsUnavailableError, match="QUARTERDECK_GIT_LFS=true"):
        await worktrees.prepare("run", 1, remote.repository, checkout=ASKED)
    assert node.git.commands == []
