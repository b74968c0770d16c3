"""Where a vcs has the mirror of a repository, by the rule that vcs names its folders by. Pure: opens nothing."""

from __future__ import annotations

import hashlib
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

_DEFAULT_PORTS = {"https": 443, "http": 80, "ssh": 22}
_SLUG_CHARACTERS = 60
_DIGEST_CHARACTERS = 16


def mirror_path(root: Path, url: str) -> Path:
    """``root``: the vcs's folder. ``url``: of a repository, as it was checked when it was added.

    Whose repository it is belongs to the name: those of two owners never collide.
    """
    key = _key(url)
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(key.split("/")[-2:])).strip("-.")[-_SLUG_CHARACTERS:]
    digest = hashlib.sha256(key.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return root / "mirrors" / f"{slug}-{digest}.git"


def _key(url: str) -> str:
    """`host/owner/name`, however it was spelt."""
    if url.startswith("/") or url.lower().startswith("file:"):
        path = url if url.startswith("/") else unquote(urlsplit(url).path)
        plain = "/" + posixpath.normpath(path).strip("/")
        return f"local{plain.removesuffix('.git').rstrip('/') or '/'}"
    if "://" not in url:
        host, _, path = url.rpartition("@")[2].partition(":")
        return f"{host.lower()}/{_plain(path)}"
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    is_usual = parts.port in (None, _DEFAULT_PORTS.get(parts.scheme))
    return f"{host if is_usual else f'{host}:{parts.port}'}/{_plain(parts.path)}"


def _plain(path: str) -> str:
    return unquote(path.rstrip("/")).strip("/").removesuffix(".git")
