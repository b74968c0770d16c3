"""Runs without a repository: the same empty base on every node, kept as any other, and asked of nobody."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from services.contracts.v1 import vcs_pb2 as pb
from services.vcs.disk.usage import DiskLimits
from services.vcs.mirrors.empty import EMPTY, ROOT_SHA
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.mirrors.options import MirrorOptions
from services.vcs.worktrees.worktrees import Worktrees
from tests.integration.vcs.conftest import METADATA, Node, content, git
from tests.integration.vcs.rpc_serving import parts_of, read_all, ref, stub_of
from tests.integration.vcs.test_janitor import HOUR, Store, Swept, ref_of

FILES = {"main.py": (0, b"print('hello')\n"), "docs/a b.bin": (0, b"\0\xff")}
ASKS_A_REMOTE = {"fetch", "ls-remote", "clone"}


def write(folder: Path) -> None:
    for name, (_, data) in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


async def test_many_begin_at_once_and_go_on_elsewhere_with_the_same_commit(make_node: Callable[[str], Node]) -> None:
    here, elsewhere = make_node("here"), make_node("elsewhere")
    all_ready = await asyncio.gather(*(here.worktrees.prepare(f"run-{n}", 1, EMPTY) for n in range(4)))
    assert {(ready.base_sha, ready.base_branch) for ready in all_ready} == {(ROOT_SHA, "")}
    assert here.git.count("init") == 1
    assert [content(ready.path) for ready in all_ready] == [{}] * 4

    write(all_ready[0].path)
    snapshot = await here.worktrees.checkpoint("run-0", 1)
    assert [(file.path, file.change) for file in snapshot.files] == [(b"docs/a b.bin", "added"), (b"main.py", "added")]
    again = await elsewhere.worktrees.prepare("run-0", 2, EMPTY, base_sha=ROOT_SHA, patch=snapshot.patch)
    assert content(again.path) == FILES
    commits = [
        await node.commits.commit_worktree("run-0", number, METADATA) for number, node in ((1, here), (2, elsewhere))
    ]
    assert commits[0] == commits[1]
    assert commits[0].patch == snapshot.patch
    assert not ASKS_A_REMOTE & {command[0] for node in (here, elsewhere) for command in node.git.commands}


async def test_it_is_put_back_to_a_checkpoint_and_to_nothing(node: Node) -> None:
    ready = await node.worktrees.prepare("run", 1, EMPTY)
    write(ready.path)
    patch = (await node.worktrees.checkpoint("run", 1)).patch
    (ready.path / "main.py").unlink()
    (ready.path / "more").write_text("x")
    await node.worktrees.restore("run", 1, patch)
    assert content(ready.path) == FILES
    await node.worktrees.restore("run", 1, b"")
    assert content(ready.path) == {}
    assert (await node.worktrees.checkpoint("run", 1)).patch == b""


async def test_a_partial_mirror_s_options_and_a_job_s_credentials_change_nothing(node: Node) -> None:
    mirrors = Mirrors(node.root, node.git, options=MirrorOptions("blob:none", 1)).seen_through(node.git)
    worktrees = Worktrees(node.root, mirrors, node.git)
    for attempt in (1, 2):
        assert (await worktrees.prepare("run", attempt, EMPTY)).base_sha == ROOT_SHA
    assert not ASKS_A_REMOTE & {command[0] for command in node.git.commands}


async def test_damaged_it_is_made_anew_with_what_is_pinned(node: Node) -> None:
    first = await node.worktrees.prepare("run-1", 1, EMPTY)
    git_dir = node.mirrors.place(EMPTY).git_dir
    damaged = git_dir / "objects" / ROOT_SHA[:2] / ROOT_SHA[2:]
    damaged.chmod(0o644)
    damaged.write_bytes(b"garbage")
    await node.worktrees.prepare("run-2", 1, EMPTY)
    assert git(git_dir, "for-each-ref", "--format=%(refname) %(objectname)").splitlines() == [
        f"refs/quarterdeck/base/run-{number} {ROOT_SHA}" for number in (1, 2)
    ]
    write(first.path)
    assert (await node.commits.commit_worktree("run-1", 1, METADATA)).sha
    for number in (1, 2):
        await node.worktrees.release(f"run-{number}", 1)
    assert git(git_dir, "for-each-ref") == ""
    assert node.leftovers() == []


async def test_the_janitor_rescues_what_nobody_holds_and_leaves_the_empty_one_alone(node: Node) -> None:
    swept = Swept(node, Store(), DiskLimits(budget_bytes=1, least_free_share=0.0))
    run_id = str(uuid4())
    write((await node.worktrees.prepare(run_id, 1, EMPTY)).path)
    done = await swept.janitor.run_once()
    assert (done.rescued, done.failures) == ([ref_of(run_id)], [])
    git_dir = node.mirrors.place(EMPTY).git_dir
    assert git(git_dir, "show", f"{ref_of(run_id)}:main.py") == "print('hello')"
    git(git_dir, "update-ref", "-d", ref_of(run_id))
    long_ago = time.time() - 10_000 * HOUR
    os.utime(git_dir / "quarterdeck.used", (long_ago, long_ago))
    done = await swept.anew(swept.limits).run_once()
    assert (done.evicted, done.failures, swept.mirrors()) == ([], [], {EMPTY.folder})


@pytest.mark.parametrize("base_sha", ["", ROOT_SHA])
async def test_it_is_what_a_request_without_a_repository_means(node: Node, base_sha: str) -> None:
    async with stub_of(parts_of(node)) as stub:
        *_, last = await read_all(stub.Prepare(pb.PrepareRequest(worktree=ref(), base_sha=base_sha)))
        assert (last.ready.base_sha, last.ready.base_branch) == (ROOT_SHA, "")
        write(Path(last.ready.path))
        reply = await stub.Checkpoint(pb.CheckpointRequest(worktree=ref()))
        assert [file.path for file in reply.files] == ["docs/a b.bin", "main.py"]
        await stub.Release(pb.ReleaseRequest(worktree=ref()))
    assert node.leftovers() == []
