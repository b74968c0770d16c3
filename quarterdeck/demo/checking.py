"""Checks what the job delivered, from Git alone and without a word from the services."""

from __future__ import annotations

from collections.abc import Iterator

from quarterdeck.demo.git import Entry, GitError, blobs, line, tree
from quarterdeck.demo.origins import CheckoutState, Origin
from quarterdeck.demo.replacement import Replacement, is_text
from services.contracts.rest import Run

MOST_PATHS = 5


def check_run(origin: Origin, run: Run | None, replacement: Replacement) -> list[str]:
    """What is wrong with the branch that a run pushed, in words; nothing where it is as asked."""
    if run is None:
        return [f"{origin.name}: the job has no run for {origin.path}"]
    if run.changeset is None or run.branch is None:
        return [f"{origin.name}: the run is {run.state} and has no changeset: {run.error or 'no error was given'}"]
    try:
        return [f"{origin.name}: {word}" for word in _check_branch(origin, run, replacement)]
    except GitError as error:
        return [f"{origin.name}: {error}"]


def check_checkout(before: CheckoutState | None, after: CheckoutState | None) -> list[str]:
    """What became of the user's checkout."""
    if before == after:
        return []
    return ["the checkout that the packages run from is not as it was: its HEAD, branches or status changed"]


def _check_branch(origin: Origin, run: Run, replacement: Replacement) -> Iterator[str]:
    assert run.changeset is not None
    if (head := line("rev-parse", "--verify", f"refs/heads/{run.branch}", folder=origin.path)) != (
        told := run.changeset.commit_sha
    ):
        yield f"the branch {run.branch} is at {head}, the changeset says {told}"
    if line("rev-parse", f"refs/heads/{origin.branch}", folder=origin.path) != origin.base:
        yield f"the branch {origin.branch}, which the work starts from, was moved"
    commits = line("rev-list", f"{origin.base}..{head}", folder=origin.path).split()
    parents = line("rev-parse", f"{head}^@", folder=origin.path).split()
    if commits != [head] or parents != [origin.base]:
        yield f"the branch {run.branch} has {len(commits)} commits on top of {origin.base}, not exactly one"
    yield from _check_trees(origin, head, replacement)


def _check_trees(origin: Origin, head: str, replacement: Replacement) -> Iterator[str]:
    base, made = tree(origin.path, origin.base), tree(origin.path, head)
    contents = blobs(origin.path, (entry.blob for entry in [*base.values(), *made.values()] if entry.mode != "160000"))
    yield from _named("are gone", base.keys() - made.keys())
    yield from _named("are new", made.keys() - base.keys())
    both = base.keys() & made.keys()
    yield from _named("have another mode", {path for path in both if base[path].mode != made[path].mode})

    def expected(entry: Entry) -> bytes | None:
        content = contents.get(entry.blob)
        wanted = content is not None and entry.is_regular and is_text(content)
        return replacement.applied(content) if content is not None and wanted else content

    wrong = {path for path in both if contents.get(made[path].blob) != expected(base[path])}
    yield from _named(f"are not what replacing '{replacement.old}' gives", wrong)
    if all(expected(entry) == contents.get(entry.blob) for entry in base.values()):
        yield f"'{replacement.old}' stands nowhere in {origin.base}: there was nothing to do"


def _named(what: str, paths: set[str]) -> Iterator[str]:
    if paths:
        some = ", ".join(sorted(paths)[:MOST_PATHS])
        yield f"{len(paths)} file(s) {what}: {some}{' …' if len(paths) > MOST_PATHS else ''}"
