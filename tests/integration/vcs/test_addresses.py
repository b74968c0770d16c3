"""Which remotes are asked at all, and that the one that was checked is the one that is connected to."""

import asyncio
import os
import shlex
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.vcs.errors import GitError, RepositoryRefusedError
from services.vcs.git.addresses import AllowedRemotes, RemoteAccess
from services.vcs.git.remotes import clone_failed
from services.vcs.git.repositories import Endpoint, Repository, parse_repository
from services.vcs.git.runner import Git
from tests.integration.git_server import GitServer, git_server

DEADLINE = timedelta(seconds=60)
NAME = "git.example.org"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[GitServer]:
    async with git_server(tmp_path / "served") as server:
        server.create("o/n")
        yield server


def runner(tmp_path: Path, allowed: str = "", **options: Any) -> Git:
    return Git(tmp_path / "home", remotes=RemoteAccess(AllowedRemotes.parse(allowed), True, **options))


async def ask(git: Git, url: str) -> bytes:
    repository = Repository(url, "key", "folder")
    return await git.run_against(repository, "ls-remote", "--end-of-options", url, timeout=DEADLINE)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "017700000001", "0"),
        *("0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::127.0.0.1]"),
        *("10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "[fd00::1]", "[fe80::1]"),
    ],
)
@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:1"])
async def test_what_is_not_the_internets_is_not_asked(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, proxy: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    port = server.url.rpartition(":")[2]
    with pytest.raises(RepositoryRefusedError, match=r"was not asked|odd spelling"):
        await ask(runner(tmp_path), f"http://{host}:{port}/o/n.git")
    with pytest.raises(RepositoryRefusedError, match=r"was not asked|odd spelling"):
        await ask(runner(tmp_path), f"ssh://git@{host}:{port}/o/n.git")
    assert not server.seen


@pytest.mark.parametrize("allowed", ["127.0.0.0/8", "127.0.0.1", "127.0.0.1:{port}", "x, 127.0.0.1 ,10.0.0.0/8"])
async def test_what_is_allowed_is_asked(server: GitServer, tmp_path: Path, allowed: str) -> None:
    port = server.url.rpartition(":")[2]
    await ask(runner(tmp_path, allowed.format(port=port)), server.address("o/n"))
    assert server.seen


@pytest.mark.parametrize("allowed", ["", "127.0.0.1:1", "10.0.0.0/8", "localhost"])
async def test_what_is_near_what_is_allowed_is_not_asked(server: GitServer, tmp_path: Path, allowed: str) -> None:
    with pytest.raises(RepositoryRefusedError, match="QUARTERDECK_GIT_ALLOWED_REMOTES"):
        await ask(runner(tmp_path, allowed), server.address("o/n"))
    assert not server.seen


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1"])
async def test_an_odd_spelling_is_refused_even_of_what_is_allowed(tmp_path: Path, host: str) -> None:
    with pytest.raises(RepositoryRefusedError, match="odd spelling"):
        await ask(runner(tmp_path, "127.0.0.0/8"), f"http://{host}:1/o/n")


@pytest.mark.parametrize("text", ["https://git.internal", "bot@git.internal", "10.0.0.1/8"])
def test_a_list_with_something_else_in_it_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host"):
        AllowedRemotes.parse(text)


async def test_plain_http_needs_to_be_allowed(server: GitServer, tmp_path: Path) -> None:
    git = Git(tmp_path / "home", remotes=RemoteAccess(AllowedRemotes.parse("127.0.0.1")))
    with pytest.raises(RepositoryRefusedError, match="use https"):
        await ask(git, server.address("o/n"))


class Resolver:
    """A name server that says another thing each time it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._resolve)

    async def _resolve(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self._answers.pop(0), port))]


async def test_git_connects_to_the_address_that_was_checked(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(monkeypatch, "127.0.0.1", "169.254.169.254")
    # No name server knows the name: Git can only have the address from us.
    url = server.address("o/n").replace("127.0.0.1", NAME)
    await ask(runner(tmp_path, "127.0.0.1"), url)
    assert server.seen
    with pytest.raises(RepositoryRefusedError):
        await ask(runner(tmp_path, "127.0.0.1"), url)
    assert resolver.asked == [NAME, NAME]


async def unknown(*_: Any, **__: Any) -> list[Any]:
    raise socket.gaierror("unknown")


async def silent(*_: Any, **__: Any) -> list[Any]:
    await asyncio.Event().wait()
    return []


@pytest.mark.parametrize(("resolve", "words"), [(unknown, "cannot be resolved"), (silent, "not be resolved in time")])
async def test_a_name_that_is_not_known_now_may_be_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolve: Callable[..., Any], words: str
) -> None:
    monkeypatch.setattr("services.vcs.git.addresses.RESOLVE_TIMEOUT", timedelta(milliseconds=50))
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    with pytest.raises(GitError, match=words) as caught:
        await ask(runner(tmp_path), f"https://{NAME}/o/n")
    repository = parse_repository(f"https://{NAME}/o/n", allow_local=False)
    assert clone_failed(repository, caught.value).retryable


async def test_a_proxy_resolves_names_and_is_used_for_nothing_else(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(monkeypatch, "127.0.0.1")
    # To a proxy the whole address is said; the server of the tests takes its path alone.
    monkeypatch.setenv("http_proxy", server.url)
    await ask(runner(tmp_path), f"http://{NAME}/o/n.git")
    assert server.seen
    assert not resolver.asked
    server.seen.clear()
    monkeypatch.setenv("no_proxy", NAME)
    with pytest.raises(RepositoryRefusedError):
        await ask(runner(tmp_path), f"http://{NAME}/o/n.git")
    assert not server.seen


@pytest.fixture
def recorded_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh that writes down what it is called with."""
    program, record = tmp_path / "bin" / "ssh", tmp_path / "called"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$SSH_AUTH_SOCK" "$@" >{record}\nexit 255\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return record


@pytest.mark.parametrize(("port", "key"), [("", NAME), (":2222", f"[{NAME}]:2222")])
async def test_ssh_connects_to_the_address_that_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded_ssh: Path, port: str, key: str
) -> None:
    Resolver(monkeypatch, "93.184.216.34")
    known = tmp_path / "known hosts"
    git = runner(tmp_path, known_hosts=known, ssh_auth_sock="/run/agent's.sock")
    with pytest.raises(GitError):
        await ask(git, f"ssh://git@{NAME}{port}/o/n")
    agent, *arguments = await asyncio.to_thread(lambda: recorded_ssh.read_text().splitlines())
    assert agent == "/run/agent's.sock"
    options = [argument for argument in arguments if argument.startswith("-o") and argument != "-o"]
    understood = ["/usr/bin/ssh", "-F", "none", "-G", *options, NAME]
    output = await asyncio.to_thread(subprocess.check_output, understood, text=True, timeout=60)
    shown = output.splitlines()
    assert {
        "hostname 93.184.216.34",
        f"hostkeyalias {key.lower()}",
        "stricthostkeychecking true",
        "forwardagent no",
        "serveraliveinterval 15",
        "serveralivecountmax 3",
        f"userknownhostsfile {known}",
    } <= {line.replace('"', "") for line in shown}


async def test_no_program_but_ssh_is_told_of_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent.sock")
    git = Git(tmp_path / "home")
    shown = await git.run("-c", "alias.e=!env", "e", timeout=DEADLINE)
    assert b"/run/agent.sock" not in shown
    command = git._remotes._ssh(Endpoint("ssh", NAME, 22), ("93.184.216.34",))["GIT_SSH_COMMAND"]
    assert shlex.split(command)[:2] == ["SSH_AUTH_SOCK=/run/agent.sock", "ssh"]
