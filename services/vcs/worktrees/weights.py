"""Which files make a change large, in words. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MOST_NAMED: Final = 5
# Smaller parts of the whole are not named by themselves.
_LEAST_SHARE: Final = 0.1
# A folder is named in place of what lies in it, unless a few large parts are nearly all of it.
_NEARLY_ALL: Final = 0.8
_NAME_CHARACTERS: Final = 100


@dataclass(slots=True)
class _Node:
    size: int = 0
    files: int = 0
    children: dict[str, "_Node"] = field(default_factory=dict)


def heaviest(sizes: Mapping[str, int]) -> str:
    """The largest files and folders, heaviest first: `a/b.bin (80 MiB), node_modules/ (41 MiB in 3,204 files)`.

    ``sizes``: in bytes, by path; of one file at least.
    """
    root = _Node()
    for path, size in sizes.items():
        _add(root, path, size)
    found = sorted(_named(root, least=root.size * _LEAST_SHARE), key=lambda pair: pair[1].size, reverse=True)
    return ", ".join(_worded(name, node) for name, node in found[:MOST_NAMED])


def _add(root: _Node, path: str, size: int) -> None:
    node = root
    for name in ("", *path.split("/")):
        node = node.children.setdefault(name, _Node()) if name else node
        node.size += size
        node.files += 1


def _named(root: _Node, *, least: float) -> list[tuple[str, _Node]]:
    found: list[tuple[str, _Node]] = []
    waiting = [("", root)]
    while waiting:
        path, each = waiting.pop()
        large = [(f"{path}/{below}" if path else below, child) for below, child in each.children.items()]
        large = [(below, child) for below, child in large if child.size >= least]
        if large and (not path or sum(child.size for _, child in large) >= each.size * _NEARLY_ALL):
            waiting += large
        else:
            found.append((path, each))
    return found


def _worded(path: str, node: _Node) -> str:
    size = f"{node.size / 1024**2:,.0f} MiB" if node.size >= 1024**2 else f"{node.size:,} bytes"
    shown = "".join(each if each.isprintable() else "?" for each in path[:_NAME_CHARACTERS])
    if node.children:
        return f"{f'{shown}/' if shown else 'files in many folders'} ({size} in {node.files:,} files)"
    return f"{shown} ({size})"
