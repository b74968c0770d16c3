"""What MCP tools are called for the model: pure, and the same for the same tools wherever a run goes on."""

import re
from collections import Counter
from collections.abc import Collection
from hashlib import sha256

MAX_NAME_CHARACTERS = 64
"""The model service takes no longer names, and none with other letters than these."""

_UNFIT = re.compile("[^A-Za-z0-9_-]")
_OFFERED = re.compile("mcp__([a-z0-9-]+)__")
_MARK_CHARACTERS = 8


def offered_names(server: str, tools: Collection[str]) -> dict[str, str]:
    """For each of ``tools`` (all of one server, no two alike) the name that the model uses: `mcp__<server>__<tool>`.

    What no name may hold becomes `_`. Where that makes two alike, or a name is too long, a mark made from the
    tool's own name tells them apart. As a server's name holds no `_`, tools of two servers are never alike.
    """
    plain = {tool: _UNFIT.sub("_", f"mcp__{server}__{tool}") for tool in sorted(tools)}
    times = Counter(plain.values())
    # Names that fit as they are come first: whatever else a server lists, they keep theirs.
    names = {tool: name for tool, name in plain.items() if _fits(tool, name)}
    for tool, name in plain.items():
        if tool not in names:
            taken = set(names.values())
            fits = times[name] == 1 and len(name) <= MAX_NAME_CHARACTERS and name not in taken
            names[tool] = name if fits else _marked(name, tool, taken)
    return names


def server_of(name: str) -> str:
    """The server whose tool the model calls ``name``; empty where that is no tool of a server."""
    match = _OFFERED.match(name)
    return match[1] if match else ""


def _fits(tool: str, name: str) -> bool:
    return len(name) <= MAX_NAME_CHARACTERS and not _UNFIT.search(tool)


def _marked(name: str, tool: str, taken: Collection[str]) -> str:
    """``name`` with a mark of its own; tried on where a server named another tool so as to collide with it."""
    mark = tool
    while True:
        mark = sha256(mark.encode(errors="surrogatepass")).hexdigest()
        marked = f"{name[: MAX_NAME_CHARACTERS - _MARK_CHARACTERS - 1]}_{mark[:_MARK_CHARACTERS]}"
        if marked not in taken:
            return marked
