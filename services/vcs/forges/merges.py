"""Merges, squashes and rebases as pure Git objects in a mirror. Moves no branch, looks at no worktree, asks no remote.

The same change on the same base makes the same commits again, whenever and wherever they are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, assert_never

from services.contracts.words import MergeMethod
from services.vcs.errors import ForgeRefusedError, GitError
from services.vcs.git.runner import Git, Place
from services.vcs.git.trees import tree_of_commit

MERGE_TIMEOUT: Final = timedelta(minutes=5)
# Says which pushed commit a squashed or rebased one stands for.
_TRAILER: Final = "Quarterdeck-Commit"
_CONFLICTS: Final = 1
_NO: Final = 1
_SHOWN_FILES: Final = 20
_AUTHOR, _COMMITTER = "AUTHOR", "COMMITTER"


@dataclass(frozen=True, slots=True)
class MergedTree:
    """``conflicts``: the files that cannot be merged, and then ``tree`` holds Git's marks in them."""

    tree: str
    conflicts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Identity:
    """``date``: as Git takes it, `@1700000000 +0100`."""

    name: str
    email: str
    date: str

    def variables(self, role: str) -> dict[str, str]:
        named = {"NAME": self.name, "EMAIL": self.email, "DATE": self.date}
        return {f"GIT_{role}_{part}": value for part, value in named.items()}


@dataclass(frozen=True, slots=True)
class _Commit:
    sha: str
    parents: tuple[str, ...]
    author: _Identity
    committed_at: int
    message: str


class Merges:
    def __init__(self, git: Git, place: Place) -> None:
        """``place``: a mirror that holds both sides."""
        self._git = git
        self._place = place

    async def tree(self, base_sha: str, commit_sha: str) -> MergedTree:
        """What merging the commit into the base would give. Raises ``GitError``: the two have no history in common."""
        arguments = ("merge-tree", "--write-tree", "--name-only", "-z", "--no-messages", base_sha, commit_sha)
        output = await self._run(*arguments, accept=(0, _CONFLICTS))
        tree, *files = output.split("\0")
        return MergedTree(tree, tuple(dict.fromkeys(name for name in files if name)))

    async def make(self, method: MergeMethod, base_sha: str, commit_sha: str, *, branch: str) -> str:
        """The commit that the base branch is to be put at; ``branch``: what is merged, for the message.

        Raises ``ForgeRefusedError`` naming the files in conflict, ``GitError``, ``GitTimeoutError``.
        """
        match method:
            case MergeMethod.MERGE:
                return await self._merge(base_sha, commit_sha, branch)
            case MergeMethod.SQUASH:
                return await self._squash(base_sha, commit_sha)
            case MergeMethod.REBASE:
                return await self._rebase(base_sha, commit_sha)
            case _:
                assert_never(method)

    async def merged_as(self, base_sha: str, commit_sha: str) -> str:
        """The commit by which the base has the change; empty where it has not. Raises ``GitError``.

        It has it with the commit itself, with one that was made of it here, or where nothing is left to be merged.
        """
        if await self._is_ancestor(commit_sha, base_sha):
            return await self._brought_by(base_sha, commit_sha)
        grep = ("rev-list", "-1", "--fixed-strings", f"--grep={_TRAILER}: {commit_sha}", base_sha, f"^{commit_sha}")
        if made := await self._run(*grep):
            return made.strip()
        merged = await self.tree(base_sha, commit_sha)
        if not merged.conflicts and merged.tree == await tree_of_commit(self._git, self._place, base_sha):
            return base_sha
        return ""

    async def common(self, base_sha: str, commit_sha: str) -> list[str]:
        """Where the two went apart; nothing where they never were one."""
        return (await self._run("merge-base", "--all", base_sha, commit_sha, accept=(0, _NO))).split()

    async def _merge(self, base_sha: str, commit_sha: str, branch: str) -> str:
        tree = await self._clean_tree(base_sha, commit_sha)
        change = await self._read(commit_sha)
        title, _, _ = change.message.partition("\n")
        message = f"Merge {branch}\n\n{title}\n"
        return await self._commit(tree, (base_sha, commit_sha), message, await self._ours(base_sha, change))

    async def _squash(self, base_sha: str, commit_sha: str) -> str:
        tree = await self._clean_tree(base_sha, commit_sha)
        commits = await self._series(base_sha, commit_sha)
        message = await self._signed("\n\n".join(commit.message.strip() for commit in commits), commit_sha)
        last = commits[-1]
        return await self._commit(tree, (base_sha,), message, await self._ours(base_sha, last), author=last.author)

    async def _rebase(self, base_sha: str, commit_sha: str) -> str:
        """Each commit again on top of the one before; one that is there already stays itself."""
        head = base_sha
        for commit in await self._series(base_sha, commit_sha):
            if len(commit.parents) != 1:
                words = f"{commit.sha} is a merge and cannot be rebased; merge or squash the changeset instead"
                raise ForgeRefusedError(words)
            head = commit.sha if commit.parents == (head,) else await self._pick(commit, head, commit_sha)
        return head

    async def _pick(self, commit: _Commit, head: str, commit_sha: str) -> str:
        ours = await self._ours(head, commit)
        # As a child of the commit's parent, the head has with the commit just that parent in common.
        head_tree = await tree_of_commit(self._git, self._place, head)
        beside = await self._commit(head_tree, commit.parents, "beside", ours)
        tree = await self._clean_tree(beside, commit.sha)
        message = await self._signed(commit.message, commit_sha) if commit.sha == commit_sha else commit.message
        return await self._commit(tree, (head,), message, ours, author=commit.author)

    async def _clean_tree(self, base_sha: str, commit_sha: str) -> str:
        merged = await self.tree(base_sha, commit_sha)
        if merged.conflicts:
            shown = ", ".join(ascii(name)[1:-1] for name in merged.conflicts[:_SHOWN_FILES])
            more = f" and {len(merged.conflicts) - _SHOWN_FILES} more" if len(merged.conflicts) > _SHOWN_FILES else ""
            words = f"the base branch has changed the same lines in {shown}{more}; run the job again on the new base"
            raise ForgeRefusedError(words)
        return merged.tree

    async def _series(self, base_sha: str, commit_sha: str) -> list[_Commit]:
        """What the commit has and the base has not, oldest first."""
        listed = await self._run("rev-list", "--reverse", "--topo-order", commit_sha, f"^{base_sha}")
        return [await self._read(sha) for sha in listed.split()]

    async def _read(self, sha: str) -> _Commit:
        shape = "--format=format:%P%x00%an%x00%ae%x00%ad%x00%ct%x00%B"
        output = await self._run("show", "--no-patch", "--no-show-signature", "--date=raw", shape, sha)
        parents, name, email, date, committed_at, message = output.split("\0", 5)
        return _Commit(sha, tuple(parents.split()), _Identity(name, email, f"@{date}"), int(committed_at), message)

    async def _ours(self, base_sha: str, change: _Commit) -> _Identity:
        """Ourselves, at the later of the two sides' times: the same however often the merge is made."""
        base = await self._read(base_sha)
        time = max(base.committed_at, change.committed_at)
        return _Identity("Quarterdeck", "quarterdeck@users.noreply.invalid", f"@{time} +0000")

    async def _signed(self, message: str, commit_sha: str) -> str:
        arguments = ("interpret-trailers", "--no-divider", "--trailer", f"{_TRAILER}: {commit_sha}")
        return await self._run(*arguments, stdin=f"{message.strip()}\n")

    async def _commit(
        self, tree: str, parents: Sequence[str], message: str, ours: _Identity, *, author: _Identity | None = None
    ) -> str:
        variables = (author or ours).variables(_AUTHOR) | ours.variables(_COMMITTER)
        options = [option for parent in parents for option in ("-p", parent)]
        output = await self._run("commit-tree", tree, *options, "-F", "-", stdin=message, variables=variables)
        return output.strip()

    async def _is_ancestor(self, commit_sha: str, base_sha: str) -> bool:
        try:
            await self._run("merge-base", "--is-ancestor", commit_sha, base_sha)
        except GitError as error:
            if error.exit_code != _NO:
                raise
            return False
        return True

    async def _brought_by(self, base_sha: str, commit_sha: str) -> str:
        """The commit of the base branch's own line that brought ``commit_sha``; itself where it lies on that line."""
        arguments = ("rev-list", "--first-parent", "--ancestry-path", "--parents", f"{commit_sha}..{base_sha}")
        lines = (await self._run(*arguments)).splitlines()
        if not lines:
            return commit_sha
        sha, first_parent, *_ = lines[-1].split()
        return commit_sha if first_parent == commit_sha else sha

    async def _run(
        self, *arguments: str, stdin: str = "", variables: dict[str, str] | None = None, accept: Sequence[int] = (0,)
    ) -> str:
        output = await self._git.run(
            *arguments,
            place=self._place,
            stdin=stdin.encode("utf-8", "surrogateescape"),
            variables=variables,
            accept=accept,
            timeout=MERGE_TIMEOUT,
        )
        return output.decode("utf-8", "surrogateescape")
