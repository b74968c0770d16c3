"""The pages of the set-up: HTML without scripts, with everything escaped that comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from aiohttp import web

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 40rem; padding: 0 1rem; }
button, .button { background: #1a7f37; border: 0; border-radius: 6px; color: #fff; display: inline-block; font: inherit;
  padding: .5rem 1rem; text-decoration: none; }
input { box-sizing: border-box; font: inherit; margin: .5rem 0 1rem; padding: .5rem; width: 100%; }
code { overflow-wrap: anywhere; } .note { color: #9a6700; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def page(title: str, body: str, *, form_action: str = "'none'", status: int = 200) -> web.Response:
    """``body``: HTML. ``form_action``: where its forms may go, as a Content Security Policy names it.

    ``Referrer-Policy`` keeps addresses with a state from leaving, and lets the form's `Origin` be told here.
    """
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action {form_action}; "
        "frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "same-origin",
        "Cache-Control": "no-store",
        "X-Frame-Options": "DENY",
    }
    text = (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>"
        f'<meta name=viewport content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1>{body}</body></html>"
    )
    return web.Response(status=status, text=text, content_type="text/html", headers=headers)


def github_setup(action: str, manifest: str, *, server: str, notes: list[str]) -> web.Response:
    """``action``: GitHub's page that takes the ``manifest``, JSON. ``server``: its origin."""
    noted = "".join(f"<p class=note>{escape(note)}</p>" for note in notes)
    return page(
        "Set up the GitHub App",
        "<p>GitHub makes an App of your own from a manifest. On the repositories where you install it, it may read and "
        "write contents, issues and pull requests, and it tells this server of what happens there. When you come back, "
        "the GitHub App's installation link is shown.</p>"
        f"{noted}"
        f'<form method=post action="{escape(action)}"><input type=hidden name=manifest value="{escape(manifest)}">'
        "<button type=submit>Create the GitHub App</button></form>",
        form_action=f"'self' {server}",  # browsers hold where it is led on from there against it, too
    )


def github_done(name: str, installation_url: str) -> web.Response:
    return page(
        "The GitHub App is set up",
        f"<p>{escape(name)} exists, and its key is stored here, encrypted. Now install it on the repositories that are "
        "to be worked on.</p>"
        f'<p><a class=button rel=noreferrer href="{escape(installation_url)}">Install the GitHub App</a></p>',
    )


def claude_setup(*, action: str, beginning: str) -> web.Response:
    """``action``: where the form goes, on this server."""
    return page(
        "Set up Claude",
        "<p>The Anthropic API key is stored encrypted, is used for this API's sessions, and is shown to nobody.</p>"
        f'<form method=post action="{escape(action)}" autocomplete=off>'
        "<label for=key>Anthropic API key</label>"
        f'<input id=key type=password name=anthropicApiKey required placeholder="{escape(beginning)}…" '
        "autocomplete=off spellcheck=false>"
        "<button type=submit>Store the key</button></form>",
        form_action="'self'",
    )


def claude_done() -> web.Response:
    return page("Claude is set up", "<p>The Anthropic API key is stored, encrypted.</p>")
