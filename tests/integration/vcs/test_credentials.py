"""Credentials reach the host they are for, and nothing else: no argument, file, environment, text or other host."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.vcs.errors import CredentialsError, GitError, GitTimeoutError
from services.vcs.git.addresses import AllowedRemotes, RemoteAccess
from services.vcs.git.credentials import ChainedCredentials, Credential, StaticCredentials
from services.vcs.git.repositories import Repository, parse_repository
from services.vcs.git.runner import Git, Place
from tests.integration.git_server import Fault, GitServer, git_server

DEADLINE = timedelta(seconds=60)
SECRET = "s3cret/to+ken=%&"
HERE = RemoteAccess(AllowedRemotes.parse("127.0.0.0/8"), allow_insecure_http=True)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[GitServer]:
    async with git_server(tmp_path / "served") as server:
        server.create("owner/private", token=SECRET)
        yield server


def repository(server: GitServer, name: str = "owner/private") -> Repository:
    return parse_repository(server.address(name), allow_local=False)


def knowing(home: Path, server: GitServer, secret: str = SECRET) -> Git:
    credentials = StaticCredentials({server.authority: Credential("bot", secret)})
    return Git(home, remotes=HERE, credentials=credentials)


async def asked(git: Git, repository: Repository, **options: Any) -> str:
    arguments = ("ls-remote", "--end-of-options", repository.url)
    return (await git.run_against(repository, *arguments, timeout=DEADLINE, **options)).decode()


async def test_a_private_repository_is_read_with_them_and_not_without(server: GitServer, tmp_path: Path) -> None:
    assert await asked(knowing(tmp_path / "home", server), repository(server)) == ""
    assert set(server.logins) == {f"bot:{SECRET}"}
    with pytest.raises(GitError, match="Authentication failed") as caught:
        await asked(Git(tmp_path / "other", remotes=HERE), repository(server))
    assert not caught.value.had_credentials


async def test_they_are_in_no_argument_environment_or_file(server: GitServer, tmp_path: Path) -> None:
    """Every program that Git starts writes down its arguments and environment, before and after the secret is read."""
    trace = tmp_path / "trace"
    trace.mkdir()
    program = tmp_path / "bin" / "cat"
    program.parent.mkdir()
    # Git reads the credential by `cat`; at that moment all its ancestors run.
    program.write_text(
        f"#!/bin/sh\nfor one in /proc/[0-9]*; do /bin/cat $one/cmdline $one/environ; done >{trace}/all 2>/dev/null\n"
        'exec /bin/cat "$@"\n'
    )
    program.chmod(0o755)
    git = knowing(tmp_path / "home", server)
    await asked(git, repository(server), variables={"PATH": f"{program.parent}:/usr/bin:/bin"})
    everything = (trace / "all").read_bytes()
    assert b"ls-remote" in everything, "else nothing was seen"
    for shape in (SECRET, base64.b64encode(f"bot:{SECRET}".encode()).decode()):
        assert shape.encode() not in everything
        assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file() and shape in path.read_text()]


async def test_a_helper_that_a_repository_configures_is_not_asked(server: GitServer, tmp_path: Path) -> None:
    git, mark, mirror = knowing(tmp_path / "home", server), tmp_path / "stolen", tmp_path / "mirror"
    await git.run("init", "--quiet", "--bare", "--", str(mirror), timeout=DEADLINE)
    for key in ("credential.helper", f"credential.{server.url}.helper"):
        await git.run("config", "--add", key, f"!cat >{mark}; :", place=Place(mirror), timeout=DEADLINE)
    assert await asked(git, repository(server), place=Place(mirror)) == ""
    assert not mark.exists()


async def test_another_port_of_the_same_host_never_sees_them(server: GitServer, tmp_path: Path) -> None:
    async with git_server(tmp_path / "others") as other:
        other.create("owner/private", token="another")
        git = knowing(tmp_path / "home", server)
        with pytest.raises(GitError):
            await asked(git, repository(other))
        # Asked for by Git itself, from within a command that holds them for the first.
        with pytest.raises(GitError):
            await git.run_against(repository(server), "ls-remote", repository(other).url, timeout=DEADLINE)
        assert other.seen
        assert not [login for login in other.logins if SECRET in login]


async def test_a_redirect_takes_them_nowhere(server: GitServer, tmp_path: Path) -> None:
    async with git_server(tmp_path / "others") as other:
        other.create("owner/private")
        server.fault = Fault(302, location=f"{other.address('owner/private')}/info/refs?service=git-upload-pack")
        with pytest.raises(GitError):
            await asked(knowing(tmp_path / "home", server), repository(server))
        assert not other.seen


@pytest.mark.parametrize("form", [SECRET, "s3cret%2Fto%2Bken%3D%25%26", "Ym90OnMzY3JldC90bytrZW49JSY"])
async def test_what_repeats_them_is_redacted(server: GitServer, tmp_path: Path, form: str) -> None:
    git = knowing(tmp_path / "home", server)
    # As remotes do that repeat what they were shown.
    alias = ("-c", """alias.tell=!printf '%s' "$FORM"; printf 'got <%s>' "$FORM" >&2; exit 3; :""", "tell")
    with pytest.raises(GitError, match=re.escape("got <***")) as caught:
        await git.run_against(repository(server), *alias, timeout=DEADLINE, variables={"FORM": form})
    assert form not in repr(caught.value) + str(caught.value.__dict__)
    assert SECRET not in repr(Credential("bot", SECRET))


async def test_the_first_provider_that_knows_answers(server: GitServer) -> None:
    here = repository(server)
    one = StaticCredentials({"git.example.org": Credential("one", "1")})
    two = StaticCredentials({"git.example.org": Credential("two", "2"), server.authority: Credential("bot", SECRET)})
    chain = ChainedCredentials(one, two)
    assert await chain.of(parse_repository("https://git.example.org/o/n", allow_local=False)) == Credential("one", "1")
    assert await chain.of(here) == Credential("bot", SECRET)
    assert await chain.of(parse_repository("https://git.example.org:8443/o/n", allow_local=False)) is None
    assert await chain.of(parse_repository("http://git.example.org/o/n", allow_local=False)) is None


class Hanging:
    async def of(self, repository: Repository) -> Credential | None:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_provider_that_hangs_is_waited_for_with_a_deadline(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.vcs.git.runner.CREDENTIALS_TIMEOUT", timedelta(milliseconds=50))
    with pytest.raises(GitTimeoutError, match="did not come") as caught:
        await asked(Git(tmp_path / "home", remotes=HERE, credentials=Hanging()), repository(server))
    assert caught.value.retryable


TOML = """
["git.example.org"]
username = "bot"
password = "pass-1"

["GIT.example.org:8443"]
token = "token-2"
"""
JSON = '{"git.example.org": {"username": "bot", "password": "pass-1"}, "git.example.org:8443": {"token": "token-2"}}'


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(("name", "text"), [("c.toml", TOML), ("c.json", JSON)])
async def test_a_file_of_them(tmp_path: Path, name: str, text: str) -> None:
    credentials = StaticCredentials.load(written(tmp_path / name, text))
    repository = parse_repository("https://git.example.org/o/n", allow_local=False)
    assert await credentials.of(repository) == Credential("bot", "pass-1")
    repository = parse_repository("https://git.example.org:8443/o/n", allow_local=False)
    assert await credentials.of(repository) == Credential("x-access-token", "token-2")


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (TOML, 0o604, "chmod"),
        ("s3cret", 0o600, "is not TOML"),
        ('["h"]\nusername = "s3cret"', 0o600, "h.password: Field required"),
        ('["h"]\ntoken = ["s3cret"]', 0o600, "valid string"),
        ('["h"]\ntoken = ""', 0o600, "at least 1"),
        ('["h"]\ntoken = "s3cret\\n"', 0o600, "line end"),
        ('["h"]\ntoken = "x"\ns3cret = 1', 0o600, "not permitted"),
        ('["https://h"]\ntoken = "s3cret"', 0o600, "host:port"),
        ('token = "s3cret"', 0o600, "valid dictionary"),
    ],
)
def test_a_file_that_is_refused_is_not_repeated(tmp_path: Path, text: str, mode: int, words: str) -> None:
    with pytest.raises(CredentialsError, match=words) as caught:
        StaticCredentials.load(written(tmp_path / "c.toml", text, mode))
    assert "c.toml" in str(caught.value)
    assert "s3cret" not in str(caught.value).replace("h.s3cret", "")


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CredentialsError, match=r"cannot be read|no file"):
        StaticCredentials.load(tmp_path / name)
