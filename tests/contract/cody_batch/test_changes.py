"""Patches as Git itself makes them, of files with odd names and contents, and what is shown of each."""

import os
from pathlib import Path

import pytest

from quarterdeck.demo.git import git
from services.gateway.dialects.cody_batch.changes import changes_of

ODD = ("with space.txt", 'quo"te.txt', "tab\there.txt", "new\nline.txt", "ünï/日本.txt", "back\\slash.txt", " b/x b/x")
LIKE_A_PATCH = "diff --git a/x b/x\n--- a/x\n+++ b/y\n@@ -1 +1 @@\n"
MANY_LINES = "".join(f"line {number}\n" for number in range(20))


@pytest.fixture
def patch(tmp_path: Path) -> bytes:
    """Of a commit that changes, adds, removes, renames and chmods files, text and binary."""
    git("init", "-q", folder=tmp_path)
    for name in (*ODD, "gone.txt", "mode.sh", "old-name.txt", "unended.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(MANY_LINES)
    (tmp_path / "gone.txt").write_text("gone\n")
    (tmp_path / "bin.dat").write_bytes(bytes(range(256)))
    _commit(tmp_path)
    for name in ODD:
        (tmp_path / name).write_text(
            MANY_LINES.replace("line 5\n", "diff --git a/x b/x\n--- a/x\n+++ b/y\n@@ -1 +1 @@\n")
        )
    (tmp_path / "gone.txt").unlink()
    (tmp_path / "mode.sh").chmod(0o755)
    (tmp_path / "old-name.txt").rename(tmp_path / "new name.txt")
    (tmp_path / "unended.txt").write_bytes(b"no end\r\nof line \xff")
    (tmp_path / "bin.dat").write_bytes(bytes(range(255, -1, -1)))
    (tmp_path / "empty.txt").touch()
    _commit(tmp_path)
    return git("diff", "--binary", "-M", "HEAD~1", "HEAD", folder=tmp_path)


def _commit(folder: Path) -> None:
    git("add", "-A", folder=folder)
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", folder=folder)


def test_each_file_is_found_by_its_name(patch: bytes) -> None:
    names = {*ODD, "gone.txt", "mode.sh", "new name.txt", "unended.txt", "bin.dat", "empty.txt"}
    changes = changes_of(patch)
    assert {change.file for change in changes} == names
    assert len(changes) == len(names)


def test_what_is_shown_of_each(patch: bytes) -> None:
    shown = {change.file: change.diff for change in changes_of(patch)}
    for name in ("with space.txt", "ünï/日本.txt"):
        first, second, third, *_ = shown[name].split("\n")
        assert (first[:4], second[:4], third[:2]) == ("--- ", "+++ ", "@@")
        assert "+diff --git a/x b/x\n+--- a/x\n++++ b/y\n+@@ -1 +1 @@\n" in shown[name]
    assert shown["gone.txt"] == "deleted file mode 100644\n--- a/gone.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone"
    assert shown["mode.sh"] == "old mode 100644\nnew mode 100755"
    assert shown["new name.txt"] == "similarity index 100%\nrename from old-name.txt\nrename to new name.txt"
    assert shown["unended.txt"].endswith("+no end\r\n+of line \ufffd\n\\ No newline at end of file")
    assert shown["bin.dat"] == "Binary file changed"
    assert shown["empty.txt"] == "new file mode 100644"


NO_PATCHES = (b"", b"\n", b"no patch", os.urandom(1_000), b"diff --git ", b'diff --git "', b"diff --git \n@@")


@pytest.mark.parametrize("patch", NO_PATCHES)
def test_what_is_no_patch_breaks_nothing(patch: bytes) -> None:
    assert len(changes_of(patch)) <= patch.count(b"diff --git ")
