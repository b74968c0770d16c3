"""The demo's parts that need Git but no stack: origins, the choice of a phrase, and checks that find what is wrong."""

from pathlib import Path
from uuid import uuid4

import pytest

from quarterdeck.demo import origins as origins_module
from quarterdeck.demo.checking import check_checkout, check_run
from quarterdeck.demo.git import blobs, commit_all, git, line, tree
from quarterdeck.demo.origins import Origin, checkout_state, make_origins
from quarterdeck.demo.packages import FetchError, SourcePackage, packaged_repository
from quarterdeck.demo.replacement import CANDIDATES, NoReplacementError, Replacement, choose
from services.contracts.rest import Changeset, Run
from services.contracts.words import ChangesetState, Checks, Mergeable, Publish, Review
from tests.integration.fake_gateway import NOW, make_job, make_run

OLD_TO_NEW = Replacement("old", "new")
FILES = {"a.py": b"old = 'old'\n", "sub/b.txt": b"an old word\n", "c.md": b"nothing\n", "d.bin": b"\0old\0"}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def origin_of(tmp_path: Path, name: str, files: dict[str, bytes]) -> Origin:
    path = tmp_path / f"{name}.git"
    commit_all(write(tmp_path / name, files), path, "base")
    return Origin(name, path, "main", line("rev-parse", "main", folder=path))


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return origin_of(tmp_path, "widget", FILES)


@pytest.fixture
def worktree(origin: Origin, tmp_path: Path) -> Path:
    """A worktree of the origin on a branch `work`, where a run would change files."""
    git("worktree", "add", "--quiet", "-b", "work", tmp_path / "work", folder=origin.path)
    return tmp_path / "work"


def commit(worktree: Path, files: dict[str, bytes]) -> None:
    write(worktree, files)
    git("add", "--all", folder=worktree)
    git("commit", "--quiet", "--message=work", folder=worktree)


def run_of(origin: Origin, *, commit_sha: str | None = None, branch: str = "work") -> Run:
    job = make_job()
    run = make_run(job, repository=str(origin.path), branch=branch)
    changeset = Changeset(
        id=uuid4(),
        job_id=job.id,
        run_id=run.id,
        state=ChangesetState.OPEN,
        repository=str(origin.path),
        branch=branch,
        base_sha=origin.base,
        base_branch="main",
        commit_sha=commit_sha or line("rev-parse", "work", folder=origin.path),
        files=[],
        insertions=0,
        deletions=0,
        url=None,
        error=None,
        publish=Publish.PULL_REQUEST,
        forge=None,
        number=None,
        superseded_by=None,
        head_sha=None,
        checks=Checks.NONE,
        review=Review.NONE,
        mergeable=Mergeable.UNKNOWN,
        merge_sha=None,
        observed_at=None,
        closed_at=None,
        is_draft=False,
        verified=None,
        created_at=NOW,
        published_at=NOW,
    )
    return run.model_copy(update={"changeset": changeset})


ASKED = {"a.py": b"new = 'new'\n", "sub/b.txt": b"an new word\n"}


def test_what_was_asked_is_found_right(origin, worktree):
    commit(worktree, ASKED)
    assert check_run(origin, run_of(origin), OLD_TO_NEW) == []


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"a.py": ASKED["a.py"]}, "1 file(s) are not what replacing 'old' gives: sub/b.txt"),
        (ASKED | {"a.py": b"new = 'old'\n"}, "1 file(s) are not what replacing 'old' gives: a.py"),
        (ASKED | {"c.md": b"something\n"}, "1 file(s) are not what replacing 'old' gives: c.md"),
        (ASKED | {"d.bin": b"\0new\0"}, "1 file(s) are not what replacing 'old' gives: d.bin"),
        (ASKED | {"e.txt": b"more\n"}, "1 file(s) are new: e.txt"),
    ],
)
def test_every_other_change_is_found(origin, worktree, files, word):
    commit(worktree, files)
    assert check_run(origin, run_of(origin), OLD_TO_NEW) == [f"widget: {word}"]


def test_a_file_that_is_gone_or_has_another_mode_is_found(origin, worktree):
    (worktree / "c.md").unlink()
    (worktree / "a.py").chmod(0o755)
    commit(worktree, ASKED)
    assert check_run(origin, run_of(origin), OLD_TO_NEW) == [
        "widget: 1 file(s) are gone: c.md",
        "widget: 1 file(s) have another mode: a.py",
    ]


def test_two_commits_are_found(origin, worktree):
    commit(worktree, {"a.py": ASKED["a.py"]})
    commit(worktree, ASKED)
    (problem,) = check_run(origin, run_of(origin), OLD_TO_NEW)
    assert "has 2 commits" in problem


def test_a_base_branch_that_moved_is_found(origin, worktree):
    commit(worktree, ASKED)
    git("update-ref", "refs/heads/main", "work", folder=origin.path)
    (problem,) = check_run(origin, run_of(origin), OLD_TO_NEW)
    assert "the branch main, which the work starts from, was moved" in problem


def test_a_branch_that_is_missing_or_elsewhere_is_found(origin, worktree):
    commit(worktree, ASKED)
    (elsewhere,) = check_run(origin, run_of(origin, commit_sha=origin.base), OLD_TO_NEW)
    assert f"the changeset says {origin.base}" in elsewhere
    (missing,) = check_run(origin, run_of(origin, branch="nowhere"), OLD_TO_NEW)
    assert missing.startswith("widget: git rev-parse:")


def test_a_run_without_a_changeset_is_found_with_its_error(origin):
    run = make_run(make_job(), state="failed", error="remote: not found")
    assert check_run(origin, run, OLD_TO_NEW) == [
        "widget: the run is failed and has no changeset: remote: not found",
    ]
    assert len(check_run(origin, None, OLD_TO_NEW)) == 1


def test_a_phrase_must_suit_every_repository(tmp_path):
    first, second = CANDIDATES[0].old.encode(), CANDIDATES[1].old.encode()
    many = {f"{number}.txt": first + b" " + second for number in range(3)}
    one = origin_of(tmp_path, "one", many)
    assert choose([one]) == CANDIDATES[0]
    hidden = origin_of(tmp_path, "hidden", many | {".hidden": first})
    assert choose([one, hidden]) == CANDIDATES[1]
    binary = origin_of(tmp_path, "binary", many | {"latin.txt": b"\xe9" + first})
    assert choose([one, binary]) == CANDIDATES[1]
    too_few = origin_of(tmp_path, "few", {"a.txt": first + second})
    with pytest.raises(NoReplacementError, match="CANDIDATES"):
        choose([one, too_few])


def test_a_repository_is_read_whole(origin):
    files = tree(origin.path, "main")
    assert {path: blobs(origin.path, [entry.blob])[entry.blob] for path, entry in files.items()} == FILES


@pytest.fixture
def no_packages(tmp_path, monkeypatch):
    """No package index can be reached."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


def test_a_package_that_cannot_be_fetched_leaves_nothing_behind(tmp_path, no_packages):
    with pytest.raises(FetchError, match="requests==2"):
        packaged_repository(SourcePackage("requests", "2.32.5", "0" * 64), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_packages_the_checkouts_own_repository_is_left(tmp_path, no_packages, monkeypatch):
    checkout = write(tmp_path / "checkout", FILES)
    git("init", "--quiet", "--initial-branch=trunk", folder=checkout)
    commit(checkout, {})
    write(checkout, {"a.py": b"edited by the user\n"})
    monkeypatch.setattr(origins_module, "checkout_folder", lambda: checkout)
    before, said = checkout_state(checkout), list[str]()
    (made,) = make_origins(tmp_path / "made", said.append)
    assert (made.branch, made.base) == ("trunk", line("rev-parse", "HEAD", folder=checkout))
    assert len(said) == 2
    assert all("cannot be fetched" in words for words in said)
    assert check_checkout(before, checkout_state(checkout)) == []
    write(checkout, {"new.txt": b"x"})
    assert len(check_checkout(before, checkout_state(checkout))) == 1


def test_a_checkout_of_a_commit_gets_a_branch(tmp_path, no_packages, monkeypatch):
    checkout = write(tmp_path / "checkout", FILES)
    git("init", "--quiet", "--initial-branch=trunk", folder=checkout)
    commit(checkout, {})
    git("checkout", "--quiet", "--detach", folder=checkout)
    git("branch", "--delete", "--force", "trunk", folder=checkout)
    monkeypatch.setattr(origins_module, "checkout_folder", lambda: checkout)
    (made,) = make_origins(tmp_path / "made", lambda _: None)
    assert line("symbolic-ref", "HEAD", folder=made.path) == "refs/heads/main"
    assert line("rev-parse", "refs/heads/main", folder=made.path) == made.base


def test_files_that_are_no_checkout_become_a_repository(tmp_path, no_packages, monkeypatch):
    folder = write(tmp_path / "folder", {"quarterdeck/a.py": b"x\n", "services/b.py": b"y\n", "other/c.py": b"z\n"})
    monkeypatch.setattr(origins_module, "checkout_folder", lambda: folder)
    said = list[str]()
    (made,) = make_origins(tmp_path / "made", said.append)
    assert "no Git checkout" in said[0]
    assert list(tree(made.path, made.base)) == ["quarterdeck/a.py", "services/b.py"]
    assert sorted(path.name for path in folder.iterdir()) == ["other", "quarterdeck", "services"]
