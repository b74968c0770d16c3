"""A changeset's page: what a pull request's page is on the forge that needs no account."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from aiohttp import web

from services.contracts.rest import Changeset
from services.contracts.text import shown
from services.gateway.auth import CLIENT
from services.gateway.context import gateway_of
from services.gateway.query import NoQuery, read_id, read_query

PATH = "/changesets/{id}"
MAX_SHOWN_BYTES = 256 * 1024

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; }
dt { color: #666; float: left; clear: left; width: 7rem; } dd { margin-left: 8rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; } td { padding: 0.1rem 1rem 0.1rem 0; }
pre { background: #f6f8fa; overflow-x: auto; padding: 1rem; font-size: 13px; }
.plus { color: #1a7f37; } .minus { color: #cf222e; } .hunk { color: #6639ba; } .file { font-weight: bold; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_COLOURS = (("diff ", "file"), ("+++ ", "file"), ("--- ", "file"), ("@@ ", "hunk"), ("+", "plus"), ("-", "minus"))
_TESTS = {True: "passed", False: "failed: this change is unverified", None: ""}
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


async def changeset_page(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    reading, client = gateway_of(request).reading, request[CLIENT]
    changeset = await reading.changeset(client, read_id(request, "changeset"))
    patch = await reading.diff(client, changeset.run_id)
    return web.Response(text=render(changeset, patch), content_type="text/html", headers=_HEADERS)


def render(changeset: Changeset, patch: bytes) -> str:
    """The page as HTML. Everything in it that a repository or a model wrote is escaped, its controls made visible."""
    facts = {
        "Repository": changeset.repository,
        "Branch": changeset.branch,
        "Commit": changeset.commit_sha,
        "Base": f"{changeset.base_sha} {changeset.base_branch or ''}",
        "State": f"{changeset.state}, as a draft" if changeset.is_draft else changeset.state,
        "Tests": _TESTS[changeset.verified],
        "Error": changeset.error or "",
    }
    title = _text(f"{changeset.branch} · {changeset.state}")
    rows = "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in facts.items() if value)
    files = "".join(
        f"<tr><td>{_text(file.path)}</td><td>{_text(file.change)}</td><td class=plus>+{file.insertions}</td>"
        f"<td class=minus>-{file.deletions}</td></tr>"
        for file in changeset.files
    )
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{title}</h1><dl>{rows}</dl><table>{files}</table>{_diff(patch, changeset)}</body></html>"
    )


def _diff(patch: bytes, changeset: Changeset) -> str:
    lines = patch[:MAX_SHOWN_BYTES].decode(errors="replace").split("\n")
    coloured = "\n".join(_line(line) for line in lines)
    rest = (
        f"<p>Only the first {MAX_SHOWN_BYTES // 1024} KiB are shown; all of it: "
        f"<code>quarterdeck diff {changeset.run_id}</code></p>"
        if len(patch) > MAX_SHOWN_BYTES
        else ""
    )
    return f"<pre>{coloured}</pre>{rest}"


def _line(line: str) -> str:
    """A line of the diff, coloured by what it begins with."""
    for beginning, name in _COLOURS:
        if line.startswith(beginning):
            return f"<span class={name}>{_text(line)}</span>"
    return _text(line)


def _text(value: str) -> str:
    return escape(shown(value))
