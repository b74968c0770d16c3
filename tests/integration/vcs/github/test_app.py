"""As a GitHub App: the installation of each owner is found, its tokens are made once and renewed in time."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services.vcs.errors import ForgeNotFoundError, ForgeRefusedError
from services.vcs.forges import RepositoryQuery
from services.vcs.forges.github import GitHubForge
from services.vcs.git.credentials import Credential
from services.vcs.git.repositories import parse_repository
from tests.integration.vcs.github.conftest import Work, repository_of
from tests.integration.vcs.github.emulated import APP_ID, INSTALLATIONS, ORG, TOKEN, USER, Emulate
from tests.integration.vcs.github.faults import FaultProxy

TOKENS = r"/access_tokens$"


async def _token(forge: GitHubForge, work: Work) -> str:
    credential = await forge.credentials.of(work.repository)
    assert credential is not None
    assert credential.username == "x-access-token"
    return credential.password


async def test_a_pull_request_of_the_app(app_forge: GitHubForge, work: Work, emulate: Emulate) -> None:
    opened = await app_forge.open(work.published(labels=["bot"]))
    pull = await emulate.ada.pull(work.full_name, opened.number or 0)
    assert pull["user"]["login"] == "quarterdeck[bot]"
    assert (await emulate.tokens_made())[-1] == INSTALLATIONS[ORG]


async def test_many_at_once_make_one_token(app_forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(app_forge.look_up(work.ref())) for _ in range(10)]
    assert {task.result().head_sha for task in tasks} == {work.sha}
    assert proxy.count("POST", TOKENS) == 1


async def test_each_owner_has_an_installation_of_its_own(app_forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    await app_forge.look_up(work.ref())
    await app_forge.permission(repository_of(proxy, f"{USER}/tools"), USER)
    await app_forge.permission(repository_of(proxy, f"{USER}/site"), USER)
    numbers = [int(one.path.split("/")[3]) for one in proxy.asked("POST", TOKENS)]
    assert numbers == [INSTALLATIONS[ORG], INSTALLATIONS[USER]]
    assert proxy.count("GET", r"/installation$") == 2


async def test_a_token_is_renewed_before_it_runs_out(app_forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    """Scripted: the emulator's are all good for an hour."""
    for minutes in (4, 6):
        expires_at = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
        proxy.answer("POST", TOKENS, 201, {"token": f"ghs_{minutes}", "expires_at": expires_at})
    assert await _token(app_forge, work) == "ghs_4"
    assert [await _token(app_forge, work) for _ in range(3)] == ["ghs_6"] * 3
    assert proxy.count("POST", TOKENS) == 2


async def test_scripted_a_token_that_is_not_accepted_is_replaced_once(
    app_forge: GitHubForge, work: Work, proxy: FaultProxy
) -> None:
    """The emulator takes any token for somebody's."""
    before = await _token(app_forge, work)
    proxy.answer("GET", r"/pulls$", 401, {"message": "Bad credentials"})
    await app_forge.open(work.published())
    assert await _token(app_forge, work) != before
    assert proxy.count("POST", TOKENS) == 2
    assert await work.numbers() == [1]
    proxy.answer("GET", r"/pulls$", 401, {"message": "Bad credentials"}, times=2)
    with pytest.raises(ForgeRefusedError, match="check GITHUB_APP_ID and GITHUB_APP_PRIVATE_KEY: Bad credentials"):
        await app_forge.open(work.published())
    assert proxy.count("POST", TOKENS) == 3


async def test_scripted_many_that_are_not_accepted_make_one_token(
    app_forge: GitHubForge, work: Work, proxy: FaultProxy
) -> None:
    await _token(app_forge, work)
    proxy.answer("GET", r"/pulls$", 401, {"message": "Bad credentials"}, times=5)
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(app_forge.look_up(work.ref()))
    assert not proxy.unused
    assert proxy.count("POST", TOKENS) == 2


async def test_scripted_an_installation_made_anew_is_found_again(
    app_forge: GitHubForge, work: Work, proxy: FaultProxy
) -> None:
    proxy.answer("GET", "/installation$", 200, {"id": 4711})
    with pytest.raises(ForgeNotFoundError):
        await app_forge.look_up(work.ref())
    assert (await app_forge.look_up(work.ref())).head_sha == work.sha


async def test_where_the_app_is_not_installed(app_forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    elsewhere = repository_of(proxy, "linus/linux")
    with pytest.raises(ForgeNotFoundError, match="the GitHub App is not installed for linus/linux"):
        await app_forge.look_up(work.ref(repository=elsewhere))
    assert await app_forge.credentials.of(elsewhere) is None


async def test_the_key_of_another_app(make_forge: Callable[..., GitHubForge], work: Work) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    forge = make_forge(app_id=str(APP_ID), private_key=pem.replace("\n", "\\n"), installation_id=INSTALLATIONS[ORG])
    with pytest.raises(ForgeRefusedError, match="check GITHUB_APP_ID and GITHUB_APP_PRIVATE_KEY: A JSON web token"):
        await forge.look_up(work.ref())


async def test_a_given_installation_is_not_looked_for(
    make_forge: Callable[..., GitHubForge], emulate: Emulate, work: Work, proxy: FaultProxy
) -> None:
    forge = make_forge(app_id=str(APP_ID), private_key=emulate.app_key, installation_id=INSTALLATIONS[ORG])
    assert (await forge.look_up(work.ref())).head_sha == work.sha
    assert proxy.count("GET", "/installation") == 0


async def test_credentials_go_to_this_server_alone(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    assert await forge.credentials.of(work.repository) == Credential("x-access-token", TOKEN)
    address = proxy.address.removeprefix("http://")
    for other in (
        f"https://{address}/a/b",
        f"ssh://git@{address}/a/b",
        "https://github.com/a/b",
        "http://127.0.0.1/a/b",
    ):
        assert await forge.credentials.of(parse_repository(other, allow_local=False)) is None
    assert not proxy.requests


LISTED = "/installation/repositories$"


def _seen(proxy: FaultProxy, *names: str) -> None:
    """Scripted: the emulator has the installations, but no list of what they see."""
    listed = [{"full_name": name, "clone_url": f"{proxy.address}/{name}.git"} for name in names]
    proxy.answer("GET", LISTED, 200, {"repositories": listed})


async def test_scripted_what_the_installations_see_is_listed(app_forge: GitHubForge, proxy: FaultProxy) -> None:
    _seen(proxy, "acme/a", "acme/b")
    _seen(proxy, "ada/c")
    assert [one.full_name async for one in app_forge.repositories(RepositoryQuery())] == ["acme/a", "acme/b", "ada/c"]
    _seen(proxy, "ada/c")
    assert [one.full_name async for one in app_forge.repositories(RepositoryQuery(owner="Ada"))] == ["ada/c"]


async def test_scripted_what_one_installation_saw_is_not_shown_to_another(
    app_forge: GitHubForge, proxy: FaultProxy
) -> None:
    proxy.has_etags = True
    for _ in range(2):
        for name in ("acme/a", "ada/c"):
            _seen(proxy, name)
        assert [one.full_name async for one in app_forge.repositories(RepositoryQuery())] == ["acme/a", "ada/c"]
    assert [one.status for one in proxy.asked("GET", LISTED)] == [200, 200, 304, 304]
