"""A bare repository made to attack whoever checks it out, lists it, reads it or believes what it says."""

import os
from pathlib import Path

from quarterdeck.demo.git import git
from tests.fuzz.hostile import DECOYS, ESCAPE_NAME, NEWLINE_NAME

MANY = 50_000
HUGE_BYTES = 64 * 1024**2
DEEP = "/".join(["d"] * 90)
NOT_UNICODE = b"not-\xff-unicode"
LINKS = {"out": "../../../outside", "secret": "../../../outside/secret.txt", "passwd": "/etc/passwd", "own": ".git"}
NAMES = [NEWLINE_NAME, ESCAPE_NAME, "Case.txt", "case.txt", "cafe\u0301", "caf\u00e9", "--upload-pack=touch"]
TEXTS: dict[bytes, str] = {
    **{name.encode(): text for name, text in DECOYS.items()},
    **dict.fromkeys(map(str.encode, NAMES), "inside\n"),
    f"{DEEP}/bottom.txt".encode(): "inside\n",
    NOT_UNICODE: "inside\n",
    b"hooks/post-checkout": "#!/bin/sh\ntouch pwned\n",
    b"embedded/HEAD": "ref: refs/heads/main\n",
    b"embedded/config": "[core]\n\tfsmonitor = touch pwned\n",
    b"src/app.py": "print('a')\n",
    b"src/old.py": "pass\n",
}
NOISE = bytes(range(256)) * 400


def make_hostile(folder: Path, name: str) -> Path:
    """One commit on main, of all of the above."""
    bare = folder / f"{name}.git"
    bare.mkdir()
    git("init", "--quiet", "--bare", "--initial-branch=main", ".", folder=bare)
    with (folder / "zeros").open("wb") as zeros:
        zeros.truncate(HUGE_BYTES)
    huge = git("-c", "core.looseCompression=1", "hash-object", "-w", folder / "zeros", folder=bare).strip()
    empty = git("hash-object", "-w", "--stdin", folder=bare).strip()
    entries = [_inline(b"100644", path, text.encode()) for path, text in TEXTS.items()]
    entries += [_inline(b"120000", path.encode(), target.encode()) for path, target in LINKS.items()]
    entries += [_inline(b"100644", b"noise.bin", NOISE), b'M 100644 %b "huge.img"\n' % huge]
    entries += [b"M 100644 %b many/%d\n" % (empty, number) for number in range(MANY)]
    _import(bare, entries)
    return bare


def make_with_metadata_inside(folder: Path, name: str) -> Path:
    """One commit whose tree holds a `.git` with a hook and a configuration, which plain Git refuses to make."""
    bare = folder / f"{name}.git"
    bare.mkdir()
    git("init", "--quiet", "--bare", "--initial-branch=main", ".", folder=bare)
    hook = git("hash-object", "-w", "--stdin", folder=bare, given=b"#!/bin/sh\ntouch pwned\n").strip().decode()
    tree = git("mktree", folder=bare, given=f"100755 blob {hook}\tpost-checkout\n".encode()).strip().decode()
    inner = _raw_tree(bare, "hooks", tree)
    outer = _raw_tree(bare, ".git", inner)
    commit = git("commit-tree", outer, "-m", "Trap", folder=bare).strip()
    git("update-ref", "refs/heads/main", commit.decode(), folder=bare)
    return bare


def _raw_tree(bare: Path, name: str, tree: str) -> str:
    raw = f"40000 {name}".encode() + b"\0" + bytes.fromhex(tree)
    options = ("-t", "tree", "-w", "--stdin", "--literally")
    return git("hash-object", *options, folder=bare, given=raw).strip().decode()


def _import(bare: Path, entries: list[bytes]) -> None:
    who = b"committer T <t@example.org> 1700000000 +0000\ndata 4\nTrap\n"
    git("fast-import", "--quiet", folder=bare, given=b"commit refs/heads/main\n" + who + b"".join(entries) + b"\n")


def _inline(mode: bytes, path: bytes, content: bytes) -> bytes:
    quoted = path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'M %b inline "%b"\ndata %d\n%b\n' % (mode, quoted, len(content), content)


def named_changes(bare: Path, patch: bytes) -> dict[tuple[str, str], bytes | None]:
    """What ``patch`` does to main, by plain Git: kind and name of each file, with its content (deleted: None)."""
    git("read-tree", "main", folder=bare)
    git("apply", "--cached", "-", folder=bare, given=patch)
    listed = git("diff-index", "--cached", "--name-status", "--no-renames", "-z", "main", folder=bare).split(b"\0")
    changes = [
        (kind.decode(), os.fsdecode(name)) for kind, name in zip(listed[::2], listed[1::2], strict=False) if name
    ]
    return {
        (kind, name): None if kind == "D" else git("cat-file", "blob", f":{name}", folder=bare)
        for kind, name in changes
    }
