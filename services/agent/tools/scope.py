"""Says which of all files beneath the root a search or listing is about."""

import re

from services.agent.tools.globs import Glob
from services.agent.workspace import Parts, is_closed


class Scope:
    """Which files are wanted: those beneath ``directory`` that ``glob`` accepts, at most ``depth`` levels down."""

    def __init__(self, directory: Parts, glob: Glob | None, *, depth: int | None = None) -> None:
        self._directory = directory
        self._glob = glob
        self._depth = depth

    def wants(self, path: Parts) -> bool:
        levels = len(path) - len(self._directory)
        if is_closed(path) or levels < 1 or path[: len(self._directory)] != self._directory:
            return False
        if self._depth is not None and levels > self._depth:
            return False
        return self._glob is None or self._glob.accepts(path)

    def rules(self) -> list[str]:
        """Gitignore rules that keep ripgrep from walking what is not wanted; they may let through more."""
        rules = self._glob.rules() if self._glob else []
        for depth, _ in enumerate(self._directory):
            parent = "/" + "".join(f"{_escaped(name)}/" for name in self._directory[:depth])
            rules += [f"{parent}*", f"!{parent}{_escaped(self._directory[depth])}/"]
        # A rule is one line: where a name breaks it, ripgrep walks everything and `wants` alone decides.
        return [] if any("\n" in name or "\r" in name for name in self._directory) else rules


def _escaped(name: str) -> str:
    return re.sub(r"([^\w.-])", r"\\\1", name, flags=re.ASCII)
