"""The App's manifest, the state that comes back with its code, the pages, and the settings of the Worker's service."""

import base64
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, strategies

from services.gateway.dialects.worker import app_manifest, pages
from services.gateway.dialects.worker.app_manifest import STATE_SECONDS, States
from services.gateway.dialects.worker.service_settings import DEFAULT_ORIGINS, ServiceSettings, origin_of
from services.gateway.problems import FieldProblemError
from services.runtime.settings import EXIT_WRONG_CONFIGURATION, load

ADDRESS = "https://quarterdeck.example/worker"
KEY = b"k" * 32
HOSTILE = "\"'><script>alert(1)</script>&"
_DOCUMENTED = (
    "issues",
    "issue_comment",
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "check_suite",
    "installation",
    "installation_repositories",
)


class Forms(HTMLParser):
    """The forms of a page and what they send."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.actions: list[str] = []
        self.fields: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        if tag == "form":
            self.actions.append(found["action"])
        if tag == "input":
            self.fields[found["name"]] = found.get("value", "")


def test_the_manifest_is_as_documented() -> None:
    made = app_manifest.manifest(ADDRESS)
    assert made["hook_attributes"] == {"url": f"{ADDRESS}/webhooks/github", "active": True}
    assert made["redirect_url"] == f"{ADDRESS}/gh-setup/callback"
    assert {made["default_permissions"][name] for name in ("contents", "pull_requests", "issues")} == {"write"}
    assert made["public"] is False
    # An App gets the last two without asking, and GitHub refuses manifests that do.
    assert (*made["default_events"], *app_manifest.SENT_ANYWAY) == _DOCUMENTED
    assert 0 < len(made["name"]) <= 34


def test_where_the_manifest_is_posted() -> None:
    server = "https://github.example"
    assert app_manifest.posted_to(server, None, "a&b") == f"{server}/settings/apps/new?state=a%26b"
    assert app_manifest.posted_to(server, "my-org", "s") == f"{server}/organizations/my-org/settings/apps/new?state=s"
    for wrong in ("", "-a", "a/b", "a b", "a" * 40, "..", "ö"):
        with pytest.raises(FieldProblemError, match="organization"):
            app_manifest.posted_to(server, wrong, "s")


@pytest.mark.parametrize("redirect_url", [None, "http://localhost:3000/done?x=ü"])
def test_a_state_comes_back_as_it_was_signed(redirect_url: str | None) -> None:
    states = States(KEY)
    state = states.new(redirect_url)
    assert States(KEY).read(states.sign(state), nonce=state.nonce) == state
    assert states.new(None).nonce != state.nonce


def test_a_state_of_another_browser_key_or_hour_is_refused() -> None:
    now = 1_000.0
    states = States(KEY, now=lambda: now)
    state = states.new(None)
    signed = states.sign(state)
    raw = bytearray(base64.urlsafe_b64decode(signed + "=" * (-len(signed) % 4)))
    raw[-1] ^= 1
    changed = base64.urlsafe_b64encode(raw).decode()
    for reader, text, nonce in (
        (states, signed, ""),
        (states, signed, "other"),
        (states, changed, state.nonce),
        (States(b"other" * 8, now=lambda: now), signed, state.nonce),
        (States(KEY, now=lambda: now + STATE_SECONDS), signed, state.nonce),
    ):
        with pytest.raises(FieldProblemError, match="state"):
            reader.read(text, nonce=nonce)
    assert States(KEY, now=lambda: now + STATE_SECONDS - 1).read(signed, nonce=state.nonce) == state


@given(strategies.text(max_size=200))
def test_whatever_else_comes_as_a_state_is_refused(text: str) -> None:
    with pytest.raises(FieldProblemError):
        States(KEY).read(text, nonce="")


def test_pages_escape_what_they_show_and_run_no_script() -> None:
    setup = pages.github_setup(HOSTILE, HOSTILE, server="https://github.example", notes=[HOSTILE])
    forms = Forms(setup.text or "")
    assert (forms.actions, forms.fields) == ([HOSTILE], {"manifest": HOSTILE})
    for response in (
        setup,
        pages.github_done(HOSTILE, HOSTILE),
        pages.claude_setup(action=HOSTILE, beginning=HOSTILE),
        pages.claude_done(),
    ):
        assert "script" not in Forms(response.text or "").tags
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("https://A.example:443/x?y#z", "https://a.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80/", "http://[::1]"),
    ],
)
def test_origins(address: str, origin: str) -> None:
    assert origin_of(address) == origin


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WORKER_RATE_LIMIT_PER_MINUTE", "0"),
        ("WORKER_RATE_LIMIT_PER_HOUR", "many"),
        ("WORKER_RATE_LIMIT_PER_DAY", "-1"),
        ("WORKER_CORS_ORIGINS", "*"),
        ("WORKER_CORS_ORIGINS", "https://a.example/path"),
        ("WORKER_CORS_ORIGINS", "a.example"),
        ("WORKER_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("WORKER_MAX_DAILY_TOKENS", "-1"),
        ("WORKER_MAX_DAILY_COST_USD", "nan"),
        ("QUARTERDECK_PUBLIC_URL", "quarterdeck.example"),
        ("QUARTERDECK_PUBLIC_URL", "https://user:word@quarterdeck.example"),
    ],
)
def test_a_wrong_setting_is_named(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        load(ServiceSettings)
    assert ended.value.code == EXIT_WRONG_CONFIGURATION
    assert capsys.readouterr().err.startswith(f"{variable}: ")


def test_settings_are_the_documents_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENVIRONMENT", "NODE_ENV", "QUARTERDECK_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    usual = ServiceSettings()
    assert usual.rates == {60: 60, 3_600: 1_000, 86_400: 5_000}
    assert usual.origins == set(DEFAULT_ORIGINS.split(","))
    assert (usual.daily.tokens, usual.daily.usd, usual.own_budget.is_told) == (1_000_000, 50, False)
    assert (usual.environment, usual.proxies) == ("production", ())
    told: dict[str, Any] = {
        "WORKER_MAX_DAILY_TOKENS": "7",
        "NODE_ENV": "staging",
        "WORKER_TRUSTED_PROXIES": "::1, 10.0.0.0/8",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    changed = ServiceSettings()
    assert (changed.daily.tokens, changed.daily.usd, changed.own_budget.is_told) == (7, 50, True)
    assert (changed.environment, len(changed.proxies)) == ("staging", 2)


def test_gateways_with_one_secret_key_read_one_anothers_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUARTERDECK_SECRET_KEY", raising=False)
    assert ServiceSettings().state_key() != ServiceSettings().state_key()
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", "first,second")
    key = ServiceSettings().state_key()
    assert key == ServiceSettings().state_key()
    assert b"first" not in key
