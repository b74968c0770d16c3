"""The janitor on real worktrees and mirrors: what it removes, what it keeps, and what comes between its look and its
removal.
"""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from services.runtime.postgres import StoreUnavailableError
from services.vcs.disk import janitor as module
from services.vcs.disk.janitor import Janitor
from services.vcs.disk.rescue import Rescue
from services.vcs.disk.usage import Disk, DiskLimits
from services.vcs.worktrees.attempts import Attempts
from tests.integration.vcs.conftest import Node, Remote, git

DEADLINE_SECONDS = 60
NO_LIMITS = DiskLimits(least_free_share=0.0)
HOUR = 3600.0


@dataclass
class Store:
    """What Postgres says of runs. ``answers``: of the next calls; then, always ``held``."""

    held: dict[UUID, int] = field(default_factory=dict)
    answers: list[dict[UUID, int]] = field(default_factory=list)
    is_away: bool = False
    kept: dict[UUID, int] = field(default_factory=dict)

    async def attempts_held(self, run_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        if self.is_away:
            raise StoreUnavailableError("connection refused")
        held = self.answers.pop(0) if self.answers else self.held
        return {run_id: attempt for run_id, attempt in held.items() if run_id in run_ids}

    async def attempts_kept(self, run_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        return {run_id: attempt for run_id, attempt in self.kept.items() if run_id in run_ids}

    async def is_stored(self, _run_id: UUID, _patch: bytes) -> bool:
        return False

    async def checkpointed(self, _: UUID) -> bytes:
        return b""


@dataclass
class Swept:
    """A node, its janitor, and what there is to be swept."""

    node: Node
    store: Store
    limits: DiskLimits = NO_LIMITS

    def __post_init__(self) -> None:
        node = self.node
        self.rescue = Rescue(node.root, node.git, node.worktrees, self.store)
        self.janitor = self.anew(self.limits)

    def anew(self, limits: DiskLimits) -> Janitor:
        node = self.node
        disk = Disk(node.root, node.mirrors, self.rescue)
        return Janitor(
            worktrees=node.worktrees,
            mirrors=node.mirrors,
            holders=self.store,
            rescue=self.rescue,
            disk=disk,
            limits=limits,
            node="vcs-1",
        )

    async def prepared(self, remote: Remote, files: Mapping[str, str] | None = None) -> str:
        """A run whose attempt 1 has a worktree that its agent wrote ``files`` into."""
        run_id = str(uuid4())
        ready = await self.node.worktrees.prepare(run_id, 1, remote.repository)
        for name, text in (files or {}).items():
            (ready.path / name).write_text(text)
        return run_id

    def refs(self, remote: Remote) -> list[str]:
        place = self.node.mirrors.place(remote.repository).git_dir
        return git(place, "for-each-ref", "--format=%(refname)", "refs/quarterdeck/rescue").split()

    def age(self, remote: Remote, hours: float) -> None:
        """Let the mirror have been used last so long ago."""
        used = self.node.mirrors.place(remote.repository).git_dir / "quarterdeck.used"
        at = time.time() - hours * HOUR
        os.utime(used, (at, at))

    def mirrors(self) -> set[str]:
        return {path.stem for path in (self.node.root / "mirrors").glob("[!.]*.git")}


@pytest.fixture
def swept(node: Node) -> Swept:
    return Swept(node, Store())


def ref_of(run_id: str, attempt: int = 1) -> str:
    return f"refs/quarterdeck/rescue/{run_id}/{attempt}"


async def test_orphans_go_and_what_only_they_had_is_rescued(swept: Swept, remote: Remote) -> None:
    held, dirty, clean = [await swept.prepared(remote, files) for files in ({"a": "1"}, {"b": "2"}, {})]
    swept.store.held = {UUID(held): 1}
    done = await swept.janitor.run_once()
    assert (done.released, done.rescued, done.failures) == (2, [ref_of(dirty)], [])
    assert done.freed_bytes > 0
    assert swept.node.worktrees.present() == [(held, 1)]
    assert swept.refs(remote) == [ref_of(dirty)]
    place = swept.node.mirrors.place(remote.repository).git_dir
    assert git(place, "show", f"{ref_of(dirty)}:b") == "2"
    assert clean not in {run_id for run_id, _ in swept.node.worktrees.present()}


async def test_a_lease_that_comes_between_look_and_removal_saves_the_worktree(swept: Swept, remote: Remote) -> None:
    run_id = await swept.prepared(remote, {"a": "1"})
    swept.store.held, swept.store.answers = {UUID(run_id): 1}, [{}]
    done = await swept.janitor.run_once()
    assert done.released == 0
    assert (swept.node.root / "worktrees" / run_id / "1" / "a").read_text() == "1"
    assert (await swept.node.worktrees.checkpoint(run_id, 1)).patch


async def test_an_older_attempt_of_a_held_run_goes(swept: Swept, remote: Remote) -> None:
    run_id = await swept.prepared(remote, {"a": "1"})
    swept.store.held = {UUID(run_id): 2}
    assert (await swept.janitor.run_once()).released == 1
    assert swept.node.worktrees.present() == []
    assert swept.refs(remote) == [ref_of(run_id)]


async def test_while_postgres_is_away_nothing_is_removed(swept: Swept, remote: Remote) -> None:
    run_id = await swept.prepared(remote)
    swept.store.is_away = True
    with pytest.raises(StoreUnavailableError):
        await swept.janitor.run_once()
    assert swept.node.worktrees.present() == [(run_id, 1)]


async def test_a_half_made_checkout_is_left_to_who_makes_it_while_that_holds_the_run(
    swept: Swept, remote: Remote
) -> None:
    run_id = await swept.prepared(remote)
    Attempts(swept.node.root).without_record(run_id, 1)
    swept.store.held = {UUID(run_id): 1}
    assert (await swept.janitor.run_once()).released == 0
    assert swept.node.worktrees.present() == [(run_id, 1)]
    swept.store.held = {UUID(run_id): 2}
    assert (await swept.janitor.run_once()).released == 1
    assert swept.node.worktrees.present() == []


async def test_what_a_kill_left_of_a_removal_goes_with_the_next_sweep(swept: Swept, remote: Remote) -> None:
    run_id = await swept.prepared(remote, {"a": "1"})
    state, worktree = Attempts(swept.node.root).folders(run_id, 1)
    state.rename(swept.node.root / "gone")  # the first step of a removal; killed before the second
    assert worktree.is_dir()
    assert (await swept.janitor.run_once()).released == 1
    assert swept.node.worktrees.present() == []


async def test_one_that_cannot_be_rescued_stays_and_holds_nobody_up(
    swept: Swept, remote: Remote, make_remote: Callable[[str], Remote]
) -> None:
    other = make_remote("other")
    other.commit({"x": "y\n"})
    stuck, fine = await swept.prepared(remote, {"a": "1"}), await swept.prepared(other, {"b": "2"})
    objects = swept.node.mirrors.place(remote.repository).git_dir / "objects"
    objects.rename(objects.with_name("away"))
    done = await swept.janitor.run_once()
    assert done.rescued == [ref_of(fine)]
    assert any(f"attempt 1 of run {stuck}" in words for words in done.failures)
    assert swept.node.worktrees.present() == [(stuck, 1)]
    again = await swept.janitor.run_once()
    assert not any(stuck in words for words in again.failures)  # told once, and tried again later
    objects.with_name("away").rename(objects)
    assert (await swept.anew(NO_LIMITS).run_once()).rescued == [ref_of(stuck)]


async def test_a_damaged_record_is_no_reason_to_throw_work_away(swept: Swept, remote: Remote) -> None:
    run_id = await swept.prepared(remote, {"a": "1"})
    state, worktree = Attempts(swept.node.root).folders(run_id, 1)
    (state / "checkout.json").write_bytes(b"")
    done = await swept.janitor.run_once()
    assert (done.released, len(done.failures)) == (0, 1)
    assert (worktree / "a").read_text() == "1"


async def test_what_is_not_ours_is_not_touched(swept: Swept, remote: Remote) -> None:
    await swept.prepared(remote)
    foreign = [swept.node.root / "worktrees" / name / "1" for name in ("lost+found", "notes")]
    for folder in foreign:
        folder.mkdir(parents=True)
    assert (await swept.janitor.run_once()).failures == []
    assert all(folder.is_dir() for folder in foreign)


async def test_a_sweep_is_bounded_and_the_next_goes_on(
    swept: Swept, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await swept.prepared(remote)
    monkeypatch.setattr(module, "MOST_RELEASED", 2)
    assert [(await swept.janitor.run_once()).released for _ in range(3)] == [2, 1, 0]


_KILLED_BEFORE_REMOVAL = """
import asyncio, os, signal, sys
from pathlib import Path
from services.vcs.worktrees.commits import Commits
from services.vcs.git.runner import Git
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.worktrees.worktrees import Worktrees
from tests.integration.vcs.conftest import Node
from tests.integration.vcs.test_janitor import Store, Swept

root = Path(sys.argv[1])
git = Git(root / "home", allow_local=True)
mirrors = Mirrors(root, git)
worktrees = Worktrees(root, mirrors, git)
worktrees.release = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(Swept(Node(root, git, mirrors, worktrees, Commits(git, mirrors, worktrees)), Store()).janitor.run_once())
"""


async def test_killed_between_rescue_and_removal_it_goes_on_where_it_was(swept: Swept, remote: Remote) -> None:
    run_id = await swept.prepared(remote, {"a": "1"})
    command = (sys.executable, "-c", _KILLED_BEFORE_REMOVAL, str(swept.node.root))
    process = await asyncio.create_subprocess_exec(*command)
    assert await asyncio.wait_for(process.wait(), DEADLINE_SECONDS) == -signal.SIGKILL
    place = swept.node.mirrors.place(remote.repository).git_dir
    first = git(place, "rev-parse", ref_of(run_id))
    assert swept.node.worktrees.present() == [(run_id, 1)]
    assert (await swept.janitor.run_once()).released == 1
    assert (git(place, "rev-parse", ref_of(run_id)), git(place, "show", f"{first}:a")) == (first, "1")


async def test_rescued_work_is_dropped_once_it_is_old(swept: Swept, remote: Remote) -> None:
    run_id = await swept.prepared(remote, {"a": "1"})
    await swept.janitor.run_once()
    assert swept.refs(remote) == [ref_of(run_id)]
    long_kept = replace(NO_LIMITS, rescued_kept=timedelta(seconds=-5))
    assert (await swept.anew(long_kept).run_once()).forgotten == 1
    assert swept.refs(remote) == []


async def test_the_pin_of_a_run_that_is_gone_goes_and_that_of_one_that_begins_stays(
    swept: Swept, remote: Remote
) -> None:
    present, gone, begins = await swept.prepared(remote), str(uuid4()), str(uuid4())
    for run_id in (gone, begins):
        await swept.node.mirrors.pin(remote.repository, run_id, remote.at("main"))
    swept.store.held = {UUID(present): 1, UUID(begins): 1}
    await swept.janitor.run_once()
    kept = await swept.rescue.kept(remote.repository.folder)
    assert set(kept.pinned) == {present, begins}


async def test_what_a_job_keeps_stays_until_that_is_over(swept: Swept, remote: Remote) -> None:
    kept, older = await swept.prepared(remote, {"a": "1"}), await swept.prepared(remote)
    swept.store.kept = {UUID(kept): 1, UUID(older): 2}
    assert (await swept.janitor.run_once()).released == 1
    assert swept.node.worktrees.present() == [(kept, 1)]
    swept.store.kept = {}
    done = await swept.janitor.run_once()
    assert (done.released, done.rescued) == (1, [ref_of(kept)])


async def test_what_a_job_keeps_goes_oldest_first_where_the_disk_is_full(swept: Swept, remote: Remote) -> None:
    oldest, newest, held = [await swept.prepared(remote, {"big": "x" * 300_000}) for _ in range(3)]
    swept.store.held = {UUID(held): 1}
    swept.store.kept = {UUID(oldest): 1, UUID(newest): 1}
    used = (await swept.janitor.status()).used_bytes
    done = await swept.anew(replace(NO_LIMITS, budget_bytes=used - 100_000)).run_once()
    assert (done.released, done.evicted) == (1, [])
    assert sorted(swept.node.worktrees.present()) == sorted([(newest, 1), (held, 1)])
    await swept.anew(replace(NO_LIMITS, budget_bytes=1)).run_once()
    assert swept.node.worktrees.present() == [(held, 1)]


@pytest.fixture
async def many(swept: Swept, make_remote: Callable[[str], Remote]) -> list[Remote]:
    """Four mirrors of about the same size: the first unused for four hours, the last for one."""
    remotes = [make_remote(f"many-{number}") for number in range(4)]
    for hours, remote in zip((4, 3, 2, 1), remotes, strict=True):
        remote.commit({"data": os.urandom(200_000)})
        await swept.node.mirrors.fetch(remote.repository)
        swept.age(remote, hours)
    return remotes


def folders(*remotes: Remote) -> set[str]:
    return {remote.repository.folder for remote in remotes}


async def test_no_mirror_goes_while_there_is_room(swept: Swept, many: list[Remote]) -> None:
    assert (await swept.janitor.run_once()).evicted == []
    assert swept.mirrors() == folders(*many)


async def test_the_least_recently_used_mirrors_go_until_the_budget_is_met(swept: Swept, many: list[Remote]) -> None:
    used = (await swept.janitor.status()).used_bytes
    swept.age(many[1], 9)
    budget = replace(NO_LIMITS, budget_bytes=used - 300_000)
    done = await swept.anew(budget).run_once()
    assert done.evicted == [many[1].repository.folder, many[0].repository.folder]
    assert swept.mirrors() == folders(*many[2:])
    status = await swept.anew(budget).status()
    assert status.used_bytes <= status.budget_bytes


async def test_what_went_meanwhile_counts_no_more(swept: Swept, remote: Remote, many: list[Remote]) -> None:
    run_id = await swept.prepared(remote, {"big": "x" * 500_000})
    swept.store.held = {UUID(run_id): 1}
    used = (await swept.janitor.status()).used_bytes
    janitor = swept.anew(replace(NO_LIMITS, budget_bytes=used - 400_000))
    await janitor.status()
    await swept.node.worktrees.release(run_id, 1)
    assert (await janitor.run_once()).evicted == []
    assert (await janitor.status()).worktrees == 0
    assert swept.mirrors() >= folders(*many)


async def test_a_disk_with_too_little_room_lets_every_unneeded_mirror_go(swept: Swept, many: list[Remote]) -> None:
    pinned, rescued, in_use = many[:3]
    await swept.node.mirrors.pin(pinned.repository, "somebody", pinned.at("main"))
    await swept.prepared(rescued, {"a": "1"})
    await swept.janitor.run_once()
    held = await swept.prepared(in_use)
    swept.store.held = {UUID(held): 1}
    for remote in many:
        swept.age(remote, 5)
    done = await swept.anew(DiskLimits(least_free_share=1.0)).run_once()
    assert done.evicted == [many[3].repository.folder]
    assert swept.mirrors() == folders(pinned, rescued, in_use)


async def test_mirrors_unused_for_long_go_whatever_room_there_is(swept: Swept, many: list[Remote]) -> None:
    limits = replace(NO_LIMITS, mirrors_kept=timedelta(hours=2, minutes=30))
    done = await swept.anew(limits).run_once()
    assert done.evicted == [remote.repository.folder for remote in many[:2]]


async def test_a_mirror_that_is_used_again_meanwhile_stays(swept: Swept, many: list[Remote]) -> None:
    janitor = swept.anew(replace(NO_LIMITS, mirrors_kept=timedelta(hours=3, minutes=30)))
    await janitor.status()  # looked at before it was used again
    await swept.node.mirrors.fetch(many[0].repository)
    assert (await janitor.run_once()).evicted == []


async def test_the_status_tells_what_is_where(swept: Swept, remote: Remote, many: list[Remote]) -> None:
    dirty = await swept.prepared(remote, {"a": "1"})
    await swept.janitor.run_once()
    run_id = await swept.prepared(remote, {"big": "x" * 500_000})
    swept.store.held = {UUID(run_id): 1}
    began = int(time.time())
    janitor = swept.anew(replace(NO_LIMITS, budget_bytes=10**12))
    before = await janitor.status()
    await janitor.run_once()
    status = await janitor.status(remote.repository.key)
    assert (before.swept_at, status.swept_at >= began) == (0, True)
    assert (status.node, status.budget_bytes, status.worktrees) == ("vcs-1", 10**12, 1)
    assert 0 < status.free_bytes <= shutil.disk_usage(swept.node.root).total
    assert {mirror.repository for mirror in before.mirrors} == {one.repository.key for one in (remote, *many)}
    (mirror,) = status.mirrors
    (rescued,) = mirror.rescued
    assert (rescued.ref, rescued.run_id) == (ref_of(dirty), dirty)
    assert abs(rescued.time - began) < DEADLINE_SECONDS
    assert mirror.worktrees == 1
    assert 500_000 < mirror.worktree_bytes < status.used_bytes
    assert status.used_bytes >= mirror.bytes + mirror.worktree_bytes


async def test_worktrees_on_another_volume_are_removed_on_the_spot(swept: Swept, remote: Remote) -> None:
    elsewhere = Path("/dev/shm") / f"quarterdeck-test-{uuid4().hex}"
    if not elsewhere.parent.is_dir() or elsewhere.parent.stat().st_dev == swept.node.root.stat().st_dev:
        pytest.skip("no second volume is writable here")
    elsewhere.mkdir()
    try:
        (swept.node.root / "worktrees").symlink_to(elsewhere)
        run_id = await swept.prepared(remote, {"a": "1"})
        assert list(elsewhere.iterdir()) == [elsewhere / run_id]
        assert (await swept.janitor.run_once()).rescued == [ref_of(run_id)]
        assert (list(elsewhere.iterdir()), swept.node.leftovers()) == ([], [])
    finally:
        shutil.rmtree(elsewhere)
