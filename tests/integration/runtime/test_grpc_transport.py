"""Servers and channels over TCP, Unix sockets, TLS and mTLS; and what a client is told where it finds no server."""

import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from quarterdeck.stack.ports import free_ports
from services.runtime.grpc import NO_TLS, CannotListenError, GrpcSecurity, WrongCertificatesError, make_channel
from services.runtime.settings import EXIT_WRONG_CONFIGURATION
from tests.integration.faults.proxy import Link
from tests.integration.runtime.certificates import Authority, read_security, settings_of
from tests.integration.runtime.echo import opened, refusal, say, serving

LOOPBACK = "127.0.0.1:0"
LISTEN_AND_DIE = """
import signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("listening", flush=True)
signal.pause()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own" / "vcs.sock"


@pytest.fixture
def taken(path: Path) -> Path:
    """A folder where the socket is to be."""
    path.parent.mkdir(mode=0o700)
    path.mkdir()
    return path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@contextmanager
def other_process(path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """One that listens on ``path``."""
    path.parent.mkdir(mode=0o700)
    command = [sys.executable, "-c", LISTEN_AND_DIE, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        try:
            yield process
        finally:
            process.kill()


async def test_a_socket_is_in_a_folder_of_its_user_alone(path: Path):
    async with serving(f"unix:{path}") as address:
        assert address == f"unix:{path}"
        assert await say(address) == b"hello"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    async with serving(f"unix:{path}") as address:
        assert await say(address) == b"hello"


async def test_a_folder_that_others_may_enter_is_refused(path: Path):
    path.parent.mkdir(mode=0o755)
    with pytest.raises(CannotListenError, match="not ours alone"):
        async with serving(f"unix:{path}"):
            pass
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


async def test_a_socket_of_a_dead_process_is_replaced_that_of_a_living_one_is_not(path: Path):
    with other_process(path) as process:
        with pytest.raises(CannotListenError, match="another process listens"):
            async with serving(f"unix:{path}"):
                pass
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(CannotListenError, match="another process listens"):
            async with serving(f"unix:{path}"):
                pass
    async with serving(f"unix:{path}") as address:
        assert await say(address) == b"hello"


async def test_a_living_server_of_ours_keeps_its_socket(path: Path):
    async with serving(f"unix:{path}") as address:
        with pytest.raises(CannotListenError, match="another process listens"):
            async with serving(address):
                pass
        assert await say(address) == b"hello"


async def test_what_is_no_socket_stays(taken: Path):
    for _ in range(2):  # the second finds it where it was
        with pytest.raises(CannotListenError, match="no socket"):
            async with serving(f"unix:{taken}"):
                pass


async def test_a_port_that_is_taken_is_refused():
    async with serving(LOOPBACK) as address:
        with pytest.raises(CannotListenError, match="failed to bind"):
            async with serving(address):
                pass


async def test_tcp_beyond_this_machine_needs_tls_or_leave(authority: Authority):
    with pytest.raises(CannotListenError, match="QUARTERDECK_GRPC_INSECURE"):
        async with serving("0.0.0.0:0"):
            pass
    async with serving("0.0.0.0:0", replace(NO_TLS, allow_insecure=True)) as address:
        assert await say(address.replace("0.0.0.0", "127.0.0.1")) == b"hello"
    async with serving("0.0.0.0:0", authority.security("server")) as address:
        client = authority.security("client")
        assert await say(address.replace("0.0.0.0", "127.0.0.1"), security=client) == b"hello"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_with_mtls_each_proves_itself(kind: str, path: Path, authority: Authority, tmp_path: Path):
    stranger = Authority(tmp_path / "stranger")
    async with serving(LOOPBACK if kind == "tcp" else f"unix:{path}", authority.security("server")) as address:
        client = authority.security("client")
        assert await say(address, security=client) == b"hello"
        code, _ = await refusal(say(address, security=client, token="another"))
        assert code == "UNAUTHENTICATED"
        for intruder in (
            NO_TLS,
            replace(client, certificate=None, key=None),
            replace(stranger.security("client"), ca=client.ca),
            authority.security("expired", days=-1),
        ):
            code, words = await refusal(say(address, security=intruder))
            assert code == "UNAVAILABLE"
            assert "trust our certificate" in words or "handshake failed" in words, words


@pytest.mark.parametrize("flaw", ["authority", "date", "name"])
async def test_a_client_is_told_that_it_cannot_trust_the_server(flaw: str, authority: Authority, tmp_path: Path):
    server = {
        "authority": lambda: Authority(tmp_path / "stranger").security("server"),
        "date": lambda: authority.security("server", days=-1),
        "name": lambda: authority.security("server", host="elsewhere"),
    }[flaw]()
    async with serving(LOOPBACK, server) as address:
        code, words = await refusal(say(address, security=authority.security("client")))
    assert (code, words.startswith("its certificate is not trusted here")) == ("UNAVAILABLE", True), words


async def test_with_tls_alone_only_the_server_proves_itself(authority: Authority):
    certificate, key = authority.issue("server")
    async with serving(LOOPBACK, read_security(grpc_certificate=certificate, grpc_key=key)) as address:
        assert await say(address, security=read_security(grpc_ca=authority.file)) == b"hello"


async def test_a_server_without_tls_is_named_to_a_client_with_it(authority: Authority):
    async with serving(LOOPBACK) as address:
        code, words = await refusal(say(address, security=authority.security("client")))
    assert (code, words.startswith("it does not speak TLS")) == ("UNAVAILABLE", True), words


async def test_a_server_with_a_ca_alone_is_refused(authority: Authority):
    with pytest.raises(WrongCertificatesError, match="QUARTERDECK_GRPC_CERTIFICATE: is required"):
        async with serving(LOOPBACK, read_security(grpc_ca=authority.file)):
            pass


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:{port}", "nothing listens there"),
        ("unix:{folder}/none.sock", "no socket is there"),
        ("nowhere.invalid:1", "the host's name cannot be resolved"),
    ],
)
async def test_a_wrong_address_is_told_in_words(address: str, words: str, tmp_path: Path):
    (port,) = free_ports(1)
    code, told = await refusal(say(address.format(port=port, folder=tmp_path)))
    assert (code, told.startswith(words)) == ("UNAVAILABLE", True), told


async def test_an_address_that_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel connects; nobody ever speaks
        code, told = await refusal(say(f"127.0.0.1:{server.getsockname()[1]}", timeout=None))
    assert (code, told.startswith("it cannot be reached")) == ("UNAVAILABLE", True), told


async def test_a_half_open_link_is_noticed():
    async with serving(LOOPBACK) as address, Link(f"tcp://{address}") as link:
        code, told = await refusal(stall_once_begun(link))
        assert (code, told.startswith("the link is broken")) == ("UNAVAILABLE", True), told


async def stall_once_begun(link: Link) -> None:
    address = link.url.rpartition("@")[2]
    async with make_channel(address, keepalive=timedelta(seconds=1)) as channel:
        async for message in opened(channel, b"stay"):
            assert message == b"begun"
            link.stall()


def test_files_that_no_connection_could_use_are_named(authority: Authority, tmp_path: Path):
    certificate, key = authority.issue("one")
    _, other_key = authority.issue("other")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")

    def refused(**fields: Path) -> str:
        with pytest.raises(WrongCertificatesError) as caught:
            read_security(**fields)
        return str(caught.value)

    assert refused(grpc_certificate=certificate).startswith("QUARTERDECK_GRPC_KEY: is required")
    assert refused(grpc_key=key).startswith("QUARTERDECK_GRPC_CERTIFICATE: is required")
    assert "no pair" in refused(grpc_certificate=certificate, grpc_key=other_key)
    assert "no pair" in refused(grpc_certificate=nonsense, grpc_key=key)
    assert refused(grpc_ca=nonsense).startswith("QUARTERDECK_GRPC_CA: ")
    assert "cannot be read" in refused(grpc_ca=tmp_path / "absent")
    assert read_security() == GrpcSecurity()


def test_a_key_is_not_shown(authority: Authority):
    assert "PRIVATE" not in repr(authority.security("server"))


def test_a_process_with_a_wrong_file_says_so_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        GrpcSecurity.load(settings_of(grpc_ca=tmp_path / "absent"))
    assert ended.value.code == EXIT_WRONG_CONFIGURATION
    assert capsys.readouterr().err.startswith("QUARTERDECK_GRPC_CA: ")
