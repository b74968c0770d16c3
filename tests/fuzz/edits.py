"""The tools that change files against a model of a few lines: any sequence of calls and of changes by others."""

import asyncio
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.agent.tools import FileChange, Toolbox, ToolCall, ToolResult, Workspace

MARK = "\ufeff"
NEW_MODE = 0o644
# Names that are one on some file systems (case, Unicode's forms), and names that are a file here and a folder there.
PATHS = ["a", "A", "d/a", "d/e/a", "a/b", "caf\u00e9", "cafe\u0301", "d"]
paths = st.sampled_from(PATHS)
pieces = st.text(alphabet="ab\n", max_size=3)
texts = st.builds(
    lambda mark, lines, end, last: mark + "".join(line + end for line in lines) + last,
    st.sampled_from(["", "", MARK]),
    st.lists(st.text(alphabet="ab", max_size=3), max_size=4),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "", "a", "b\r\nab", "\n"]),
)


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int = NEW_MODE


Tree = dict[str, File]


class Refused(Exception):  # noqa: N818 - a verdict of the model, not a failure
    """The model's word for: the tool must refuse, and nothing may change."""


class ModelTree:
    """What the files are and which of their contents the tools know, by the rules as they are documented."""

    def __init__(self) -> None:
        self.files: Tree = {}
        self.folders: set[str] = set()
        self.known: dict[str, bytes] = {}

    def read(self, path: str) -> None:
        self.known[path] = self._file(path).content

    def write(self, path: str, text: str) -> None:
        content = text.encode()
        if path not in self.files:
            self._require_room(path)
            self.put(path, File(content))
        elif self.files[path].content != content:
            self._require_known(path)
            self.files[path] = replace(self.files[path], content=content)
        self.known[path] = content

    def edit(self, path: str, old: str, new: str, *, every: bool) -> None:
        file = self._file(path)
        self._require_known(path)
        content = _edited(file.content.decode(), old, new, every=every).encode()
        self.files[path] = replace(file, content=content)
        self.known[path] = content

    def delete(self, path: str) -> None:
        self._file(path)
        del self.files[path]
        self.known.pop(path, None)

    def move(self, old: str, new: str) -> None:
        file = self._file(old)
        if new in self.files:
            raise Refused
        self._require_room(new)
        del self.files[old]
        self.put(new, file)
        if (known := self.known.pop(old, None)) is not None:
            self.known[new] = known

    def put(self, path: str, file: File) -> None:
        self.files[path] = file
        self.folders |= _folders_of(path)

    def has_room(self, path: str) -> bool:
        return path not in self.folders and not _folders_of(path) & set(self.files)

    def _file(self, path: str) -> File:
        if path not in self.files:
            raise Refused
        return self.files[path]

    def _require_known(self, path: str) -> None:
        if self.known.get(path) != self.files[path].content:
            raise Refused

    def _require_room(self, path: str) -> None:
        if not self.has_room(path):
            raise Refused


def _folders_of(path: str) -> set[str]:
    names = path.split("/")[:-1]
    return {"/".join(names[: depth + 1]) for depth in range(len(names))}


def _edited(text: str, old: str, new: str, *, every: bool) -> str:
    mark, body = (MARK, text[1:]) if text.startswith(MARK) else ("", text)
    if not old or old == new:
        raise Refused
    if 0 < body.count("\n") == body.count("\r\n"):
        old, new = old.replace("\n", "\r\n"), new.replace("\n", "\r\n")
    places = [at for at in range(len(body)) if body.startswith(old, at)]
    if not places or (len(places) > 1 and not every):
        raise Refused
    # The first place, and behind it the next that does not overlap it.
    result, done = "", 0
    for at in places:
        if at >= done:
            result += body[done:at] + new
            done = at + len(old)
    return mark + result + body[done:]


class EditMachine(RuleBasedStateMachine):
    """Each rule does the same to the tree and to the model; the invariant compares them."""

    @initialize(texts=st.lists(st.tuples(paths, texts, st.sampled_from([0o644, 0o755, 0o600])), max_size=4))
    def begin(self, texts: list[tuple[str, str, int]]) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="qd-edits-"))
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.workspace = Workspace(self.root)
        self.toolbox = Toolbox(self.workspace)
        self.model = ModelTree()
        for path, text, mode in texts:
            self._put(path, text, mode)

    @rule(path=paths)
    def read(self, path: str) -> None:
        self._both("read_file", lambda: self.model.read(path), path=path)

    @rule(path=paths, text=texts)
    def write(self, path: str, text: str) -> None:
        self._both("write_file", lambda: self.model.write(path, text), path=path, content=text)

    @rule(path=paths, old=pieces, new=pieces, every=st.booleans(), reads=st.booleans())
    def edit(self, path: str, old: str, new: str, every: bool, reads: bool) -> None:
        if reads:
            self.read(path)
        given = {"path": path, "old_string": old, "new_string": new, "replace_all": every}
        self._both("edit_file", lambda: self.model.edit(path, old, new, every=every), **given)

    @rule(path=paths)
    def delete(self, path: str) -> None:
        self._both("delete_file", lambda: self.model.delete(path), path=path)

    @rule(old=paths, new=paths)
    def move(self, old: str, new: str) -> None:
        self._both("move_file", lambda: self.model.move(old, new), old_path=old, new_path=new)

    @rule(old=paths, new=paths, text=texts)
    def move_and_write(self, old: str, new: str, text: str) -> None:
        """What was read under its old name may be written under the new one."""
        self.read(old)
        self.move(old, new)
        self.write(new, text)

    @rule(path=paths, text=texts, mode=st.sampled_from([0o644, 0o755]))
    def someone_else_writes(self, path: str, text: str, mode: int) -> None:
        self._put(path, text, mode)

    @rule()
    def another_attempt_goes_on(self) -> None:
        """What was read of which version is all that outlives a process."""
        successor = Workspace(self.root)
        successor.restore_read_versions(self.workspace.read_versions())
        self.workspace, self.toolbox = successor, Toolbox(successor)

    @invariant()
    def the_tree_is_the_model(self) -> None:
        if hasattr(self, "model"):
            assert tree_of(self.root) == self.model.files

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.close()
            shutil.rmtree(self.root)

    def _put(self, path: str, text: str, mode: int) -> None:
        if path in self.model.files or self.model.has_room(path):
            target = self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode())
            target.chmod(mode)
            self.model.put(path, File(text.encode(), mode))

    def _both(self, tool: str, in_model: Any, **arguments: Any) -> None:
        before = dict(self.model.files)
        refused = False
        try:
            in_model()
        except Refused:
            refused = True
        (result,) = self.runner.run(self.toolbox.run([ToolCall("1", tool, arguments)]))
        assert result.is_error is refused, result.content
        assert not result.malformed
        _check_changes(result, before, self.model.files)


def _check_changes(result: ToolResult, before: Tree, after: Tree) -> None:
    """What the tool says it changed is what changed."""
    said = {change.path: change for change in result.changed}
    kinds = {path: _kind(before.get(path), after.get(path)) for path in before.keys() | after.keys()}
    assert said == {path: FileChange(path, kind) for path, kind in kinds.items() if kind is not None}


def _kind(before: File | None, after: File | None) -> Literal["added", "modified", "deleted"] | None:
    if before is None or after is None:
        return "added" if before is None else "deleted"
    return None if before == after else "modified"


def tree_of(root: Path) -> Tree:
    """All files beneath ``root`` with content and permission bits."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            mode = stat.S_IMODE(path.stat().st_mode)
            found[str(path.relative_to(root))] = File(path.read_bytes(), mode)
    return found
