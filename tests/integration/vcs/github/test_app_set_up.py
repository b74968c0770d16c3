"""An App that GitHub made by a manifest: taken over once, stored sealed, and used by every vcs without a restart.

Scripted: the emulator converts no manifests; who the App is and what it may do from then on is the emulator's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services.jobs.forge_apps import AppCredentials, ForgeApps, NewApp
from services.runtime.postgres import Database, StoreUnavailableError
from services.runtime.sealing import Sealer
from services.vcs.errors import (
    AppLostError,
    AppSetUpUnclearError,
    CredentialsError,
    ForgeNotFoundError,
    ForgeRefusedError,
    ForgeUnavailableError,
    VcsError,
)
from services.vcs.forges import Forge, app_set_up
from services.vcs.forges.app_set_up import AppSetUp
from services.vcs.forges.choosing import Forges
from services.vcs.forges.github import GitHubAddress, GitHubConfig, GitHubForge, LocalPace, manifests
from services.vcs.forges.local import LocalForge
from services.vcs.forges.server_github import ServerGitHub
from services.vcs.git.runner import Git
from services.vcs.mirrors.mirrors import Mirrors
from tests.integration.vcs.github.conftest import Work
from tests.integration.vcs.github.emulated import APP_ID, TOKEN, Emulate
from tests.integration.vcs.github.faults import FaultProxy

CODE = "a-code_0f-the-Manifest"
CONVERSIONS = rf"^/app-manifests/{CODE}/conversions$"
WEBHOOK_SECRET, CLIENT_SECRET = "what deliveries are signed with", "a secret of the client"
KEY = Fernet.generate_key().decode()
NOBODY = "postgresql://127.0.0.1:1/nobody"


def made(emulate: Emulate, **replaced: Any) -> dict[str, Any]:
    """As GitHub documents its answer; more is in it, which is passed over."""
    return {
        "id": APP_ID,
        "slug": "quarterdeck",
        "node_id": "A_kw",
        "owner": {"login": "acme", "id": 3, "type": "Organization"},
        "name": "Quarterdeck of Acme",
        "html_url": "https://github.com/apps/quarterdeck",
        "client_id": "Iv1.0",
        "client_secret": CLIENT_SECRET,
        "webhook_secret": WEBHOOK_SECRET,
        "pem": emulate.app_key,
        "permissions": {"contents": "write"},
        **replaced,
    }


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, size=2, name="test")
    yield database
    await database.close()


@pytest.fixture
def apps(database: Database) -> ForgeApps:
    return ForgeApps(database, Sealer(KEY))


@pytest.fixture
async def make_github(proxy: FaultProxy) -> AsyncIterator[Callable[..., ServerGitHub]]:
    """One vcs's view of GitHub; ``configured``: by its settings."""
    opened: list[ServerGitHub] = []

    def make(apps: ForgeApps, configured: GitHubConfig | None = None) -> ServerGitHub:
        opened.append(ServerGitHub(configured, apps, address(proxy), lambda c: GitHubForge(c, LocalPace())))
        return opened[-1]

    yield make
    for github in opened:
        await github.aclose()


def address(proxy: FaultProxy) -> GitHubAddress:
    return GitHubAddress(proxy.address, proxy.address)


async def test_an_app_is_taken_over_and_used_by_every_vcs(
    apps: ForgeApps,
    database: Database,
    make_github: Callable[..., ServerGitHub],
    proxy: FaultProxy,
    emulate: Emulate,
    work: Work,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here, elsewhere = make_github(apps), make_github(apps)
    for github in (here, elsewhere):
        await github.refresh()
        assert github.current is None
        assert await github.of(work.repository) is None
    proxy.answer("POST", CONVERSIONS, 201, made(emulate))

    taken = await AppSetUp(address(proxy), apps, here).set_up(CODE)

    assert (taken.id, taken.slug, taken.owner.login) == (APP_ID, "quarterdeck", "acme")
    (asked,) = proxy.asked("POST", CONVERSIONS)
    assert "Authorization" not in asked.headers
    assert await apps.credentials() == AppCredentials(APP_ID, emulate.app_key)
    assert await apps.webhook_secret() == WEBHOOK_SECRET
    await elsewhere.refresh()
    for github in (here, elsewhere):
        credential = await github.of(work.repository)
        assert credential is not None
        assert github.current is not None
        assert (await github.current.look_up(work.ref())).head_sha == work.sha
    logged = capsys.readouterr()
    told = logged.out + logged.err + repr(taken)
    assert "a GitHub App was set up" in told
    for secret in (CODE, emulate.app_key, WEBHOOK_SECRET, CLIENT_SECRET):
        assert secret not in told


async def test_another_app_takes_its_place_and_who_uses_the_old_one_goes_on(
    apps: ForgeApps, make_github: Callable[..., ServerGitHub], proxy: FaultProxy, emulate: Emulate, work: Work
) -> None:
    github = make_github(apps)
    set_up = AppSetUp(address(proxy), apps, github)
    proxy.answer("POST", CONVERSIONS, 201, made(emulate), times=2)
    await set_up.set_up(CODE)
    first = github.current
    await github.refresh()
    assert github.current is first
    await set_up.set_up(CODE)
    second = github.current
    assert second is not first
    for forge in (first, second):
        assert forge is not None
        assert (await forge.look_up(work.ref())).head_sha == work.sha


async def test_what_the_settings_say_comes_first(
    apps: ForgeApps, make_github: Callable[..., ServerGitHub], proxy: FaultProxy, emulate: Emulate, work: Work
) -> None:
    github = make_github(apps, address(proxy).with_token(TOKEN))
    proxy.answer("POST", CONVERSIONS, 201, made(emulate))
    await AppSetUp(address(proxy), apps, github).set_up(CODE)
    credential = await github.of(work.repository)
    assert credential is not None
    assert credential.password == TOKEN


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (404, {"message": "Not Found"}, ForgeNotFoundError, "good once, for an hour; set the App up again"),
        (422, {"message": "Validation Failed"}, ForgeRefusedError, r"refuses to hand out the App \(422\)"),
        (302, None, ForgeRefusedError, r"refuses to hand out the App \(302\)"),
        (502, None, AppSetUpUnclearError, r"GitHub failed \(502\): whether .* is not known"),
        (201, {"id": 7}, AppSetUpUnclearError, r"cannot be read \(slug\): whether .* delete it there"),
        (201, {"pem": "no key"}, AppSetUpUnclearError, r"holds no private key \(pem\)"),
        (201, {"pem": ec.generate_private_key(ec.SECP256R1())}, AppSetUpUnclearError, r"no private key \(pem\)"),
    ],
)
async def test_scripted_what_github_answers_instead_is_told(
    apps: ForgeApps,
    make_github: Callable[..., ServerGitHub],
    proxy: FaultProxy,
    emulate: Emulate,
    status: int,
    body: dict[str, Any] | None,
    kind: type[VcsError],
    words: str,
) -> None:
    if body is not None and "pem" in body:
        pem = body["pem"]
        if not isinstance(pem, str):
            pem = pem.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
        body = made(emulate, pem=pem)
    proxy.answer("POST", CONVERSIONS, status, body)
    with pytest.raises(kind, match=words) as caught:
        await AppSetUp(address(proxy), apps, make_github(apps)).set_up(CODE)
    assert CODE not in str(caught.value)
    assert await apps.current() is None
    assert proxy.count("POST", CONVERSIONS) == 1, "a code is good once"


async def test_an_answer_that_does_not_come_leaves_open_what_was_done(
    apps: ForgeApps, make_github: Callable[..., ServerGitHub], proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up = AppSetUp(address(proxy), apps, make_github(apps))
    proxy.drop("POST", CONVERSIONS, when="instead")
    with pytest.raises(AppSetUpUnclearError, match="did not answer in full") as dropped:
        await set_up.set_up(CODE)
    monkeypatch.setattr(manifests, "TIMEOUT_SECONDS", 0.3)
    proxy.hang("POST", CONVERSIONS, when="instead")
    with pytest.raises(AppSetUpUnclearError, match="did not answer in full"):
        await set_up.set_up(CODE)
    assert (CODE in str(dropped.value), dropped.value.retryable) == (False, False)


async def test_nothing_is_asked_where_it_could_not_be_kept(
    database: Database, make_github: Callable[..., ServerGitHub], proxy: FaultProxy
) -> None:
    keyless = ForgeApps(database, Sealer(None))
    with pytest.raises(CredentialsError, match=r"cannot be set up: .*QUARTERDECK_SECRET_KEY is not set"):
        await AppSetUp(address(proxy), keyless, make_github(keyless)).set_up(CODE)
    away = Database(NOBODY, size=1, name="away")
    apart = ForgeApps(away, Sealer(KEY))
    with pytest.raises(StoreUnavailableError):
        await AppSetUp(address(proxy), apart, make_github(apart)).set_up(CODE)
    await away.close()
    assert proxy.requests == []


async def test_where_github_is_away_the_code_is_good_still(
    apps: ForgeApps, make_github: Callable[..., ServerGitHub]
) -> None:
    nowhere = GitHubAddress("http://127.0.0.1:1", "http://127.0.0.1:1")
    with pytest.raises(ForgeUnavailableError, match="try the same again"):
        await AppSetUp(nowhere, apps, make_github(apps)).set_up(CODE)


async def test_what_was_handed_out_and_not_kept_is_told(
    apps: ForgeApps,
    make_github: Callable[..., ServerGitHub],
    proxy: FaultProxy,
    emulate: Emulate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fails(_: Any) -> None:
        raise StoreUnavailableError("connection refused")

    monkeypatch.setattr(apps, "store", fails)
    monkeypatch.setattr(app_set_up, "_KEEP_TRYING_SECONDS", 0.0)
    proxy.answer("POST", CONVERSIONS, 201, made(emulate))
    with pytest.raises(AppLostError, match=r"quarterdeck was made, and .* not be stored: .*; delete it on GitHub"):
        await AppSetUp(address(proxy), apps, make_github(apps)).set_up(CODE)


async def test_what_is_handed_out_once_is_stored_though_postgres_goes_away_for_a_moment(
    apps: ForgeApps,
    make_github: Callable[..., ServerGitHub],
    proxy: FaultProxy,
    emulate: Emulate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, failures = apps.store, [StoreUnavailableError("connection refused")]

    async def fails_once(app: NewApp) -> None:
        if failures:
            raise failures.pop()
        await store(app)

    monkeypatch.setattr(apps, "store", fails_once)
    monkeypatch.setattr(app_set_up, "_PAUSE_SECONDS", 0.0)
    proxy.answer("POST", CONVERSIONS, 201, made(emulate))
    await AppSetUp(address(proxy), apps, make_github(apps)).set_up(CODE)
    assert await apps.credentials() == AppCredentials(APP_ID, emulate.app_key)


async def test_what_is_handed_out_once_is_stored_though_the_caller_has_gone(
    apps: ForgeApps,
    make_github: Callable[..., ServerGitHub],
    proxy: FaultProxy,
    emulate: Emulate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, handed_out, goes_on = apps.store, asyncio.Event(), asyncio.Event()

    async def stores_later(app: NewApp) -> None:
        handed_out.set()
        await goes_on.wait()
        await store(app)

    monkeypatch.setattr(apps, "store", stores_later)
    proxy.answer("POST", CONVERSIONS, 201, made(emulate))
    set_up = AppSetUp(address(proxy), apps, make_github(apps))
    caller = asyncio.create_task(set_up.set_up(CODE))
    await asyncio.wait_for(handed_out.wait(), 30)
    caller.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()
    assert await apps.current() is None
    goes_on.set()
    await set_up.drain(timedelta(seconds=30))
    assert await apps.credentials() == AppCredentials(APP_ID, emulate.app_key)


async def test_before_the_first_look_nobody_is_told_that_there_is_no_github(
    apps: ForgeApps, make_github: Callable[..., ServerGitHub], work: Work
) -> None:
    """A vcs that starts before Postgres: what it gave up now would be given up for good."""
    away = Database(NOBODY, size=1, name="away")
    github = make_github(ForgeApps(away, Sealer(KEY)))
    await github.begin()
    forges = Forges(LocalForge(cast("Git", None), cast("Mirrors", None), ""), github)
    asks: tuple[Callable[[], Forge], ...] = (
        partial(forges.of, work.repository),
        partial(forges.named, "github"),
        forges.listing,
    )
    for asked in asks:
        with pytest.raises(ForgeUnavailableError, match="not known yet") as caught:
            asked()
        assert caught.value.retryable
    with pytest.raises(ForgeUnavailableError, match="not known yet"):
        await github.of(work.repository)
    await away.close()

    there = make_github(apps)
    await there.begin()
    assert there.current is None
    assert await there.of(work.repository) is None


async def test_an_app_whose_key_cannot_be_opened_is_not_used(
    apps: ForgeApps,
    database: Database,
    make_github: Callable[..., ServerGitHub],
    proxy: FaultProxy,
    emulate: Emulate,
    work: Work,
) -> None:
    proxy.answer("POST", CONVERSIONS, 201, made(emulate))
    await AppSetUp(address(proxy), apps, make_github(apps)).set_up(CODE)
    other = make_github(ForgeApps(database, Sealer(Fernet.generate_key().decode())))
    for _ in range(2):
        await other.refresh()
        assert other.current is None
    assert await other.of(work.repository) is None
