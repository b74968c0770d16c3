"""Looks for the tokens, in whatever shape, wherever a site may have left them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.vcs.git.credentials import TOKEN_USERNAME
from tests.integration.publishing.site import Site, logs_of
from tests.integration.vcs.github.emulated import OTHER_TOKEN, TOKEN


def _forms(token: str) -> Iterator[bytes]:
    pair = f"{TOKEN_USERNAME}:{token}"
    yield from (token.encode(), token.encode().hex().encode())
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield from (encode(text.encode()).rstrip(b"=") for text in (token, pair))


FORMS: Final = (*_forms(TOKEN), *_forms(OTHER_TOKEN))
"""Of the server's token, and of one that jobs bring."""


def found_in(data: bytes) -> bool:
    return any(form in data for form in FORMS)


async def assert_no_token(site: Site) -> None:
    """In no log, no row (every event is one) and no file of a vcs."""
    assert not found_in((await logs_of(site.services)).encode()), "the token is in a log"
    for table in await _tables(site):
        rows = await site.domain.rows(f'SELECT t::text AS line FROM "{table}" t')
        assert not any(found_in(row["line"].encode()) for row in rows), f"the token is in a row of {table}"
    roots = [folder for folder in site.folder.iterdir() if folder.name.startswith("vcs-")]
    files = await asyncio.to_thread(lambda: [str(p) for root in roots for p in _files(root) if found_in(_read(p))])
    assert files == [], "the token is in a file of a vcs"


async def _tables(site: Site) -> list[str]:
    rows = await site.domain.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return [row["tablename"] for row in rows]


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # a lock that is let go meanwhile
        return b""
