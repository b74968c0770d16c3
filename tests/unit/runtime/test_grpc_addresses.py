"""Which addresses a gRPC server takes, which of them others can reach, and whose words a failed call is told in."""

from pathlib import Path

import grpc
import grpc.aio
import pytest
from pydantic import TypeAdapter, ValidationError

from services.runtime.grpc import GrpcAddress, explained
from services.runtime.grpc.addresses import MOST_SOCKET_PATH_BYTES, socket_path, stays_on_this_machine

ADDRESS = TypeAdapter[str](GrpcAddress)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("127.0.0.1:8091", "127.0.0.1:8091"),
        ("[::1]:8091", "[::1]:8091"),
        ("vcs:8091", "vcs:8091"),
        ("unix:/run/quarterdeck/vcs.sock", "unix:/run/quarterdeck/vcs.sock"),
        ("unix:///run/vcs.sock", "unix:/run/vcs.sock"),
    ],
)
def test_an_address_is_a_port_or_a_socket(given: str, taken: str):
    assert ADDRESS.validate_python(given) == taken


@pytest.mark.parametrize(
    "address", ["8091", "vcs", "unix:", "unix:vcs.sock", "unix:/" + "x" * MOST_SOCKET_PATH_BYTES, "vcs:70000"]
)
def test_another_address_is_refused(address: str):
    with pytest.raises(ValidationError):
        ADDRESS.validate_python(address)


def test_a_path_as_long_as_the_kernel_takes_is_taken():
    longest = "/" + "x" * (MOST_SOCKET_PATH_BYTES - 1)
    assert socket_path(ADDRESS.validate_python(f"unix:{longest}")) == Path(longest)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.0.1:1", "localhost:1", "[::1]:1", "unix:/x"])
def test_nobody_else_reaches(address: str):
    assert stays_on_this_machine(address)


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "vcs:1", "localhost.example:1"])
def test_others_may_reach(address: str):
    assert not stays_on_this_machine(address)


def failed(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


def test_the_words_of_a_service_are_told_as_they_are():
    assert explained(failed(grpc.StatusCode.NOT_FOUND, "connection refused by hand")) == "connection refused by hand"
    assert explained(failed(grpc.StatusCode.UNAVAILABLE, "Postgres is away: x")) == "Postgres is away: x"
    assert explained(failed(grpc.StatusCode.CANCELLED, "")) == "CANCELLED"


def test_what_grpc_says_of_a_link_is_told_with_its_meaning():
    said = "failed to connect to all addresses; last error: Connection refused (111)"
    told = explained(failed(grpc.StatusCode.UNAVAILABLE, said))
    assert told == f"nothing listens there: check that the service runs and that the address is its ({said})"
