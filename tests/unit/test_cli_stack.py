"""What `quarterdeck up` and `quarterdeck status` tell of a stack."""

from pathlib import Path

import pytest

from quarterdeck.cli.stack import print_info
from quarterdeck.stack.__main__ import read_options
from quarterdeck.stack.errors import StackError
from quarterdeck.stack.info import StackInfo
from quarterdeck.stack.options import StackOptions
from quarterdeck.stack.services import ServiceSpecs

SUBSCRIBER_URL = "nats://subscriber:secret@127.0.0.1:4222"


def told(capsys: pytest.CaptureFixture[str], subscriber_nats_url: str | None, grpc_address: str | None = None) -> str:
    info = StackInfo(
        address="http://127.0.0.1:1234",
        api_key="qd_stack",
        model=None,
        offline_model=False,
        model_url=None,
        database_url="postgresql://quarterdeck:hidden@127.0.0.1/db",
        nats_url="nats://quarterdeck:hidden@127.0.0.1:4222",
        subscriber_nats_url=subscriber_nats_url,
        grpc_address=grpc_address,
        vcs_address="",
        data_dir="",
        pid=1,
        processes={},
        started_at="",
        version="",
    )
    print_info(info)
    return capsys.readouterr().out


def test_subscribers_are_told_their_url_and_nobody_the_services_passwords(capsys: pytest.CaptureFixture[str]) -> None:
    output = told(capsys, SUBSCRIBER_URL)
    assert SUBSCRIBER_URL in output
    assert "hidden" not in output


def test_a_server_that_is_not_ours_has_no_subscriber_that_we_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert "read-only" not in told(capsys, None)


def test_grpc_is_told_where_it_is_served(capsys: pytest.CaptureFixture[str]) -> None:
    assert "127.0.0.1:9090" in told(capsys, None, grpc_address="127.0.0.1:9090")
    assert "gRPC" not in told(capsys, None)


@pytest.mark.parametrize(
    ("host", "listens", "reached"),
    [("127.0.0.1", "127.0.0.1:9090", "127.0.0.1:9090"), ("0.0.0.0", "0.0.0.0:9090", "127.0.0.1:9090")],
)
def test_the_gateway_serves_grpc_on_the_port_asked_for(tmp_path: Path, host: str, listens: str, reached: str) -> None:
    asked = StackOptions(data_dir=tmp_path, host=host, grpc_port=9090)
    specs = ServiceSpecs(read_options(asked.arguments()), "postgresql://db", "nats://n")
    assert specs.gateway(8080).environment["QUARTERDECK_GRPC_LISTEN"] == listens
    assert specs.grpc_address == reached


def test_grpc_is_not_served_unasked(tmp_path: Path) -> None:
    specs = ServiceSpecs(StackOptions(data_dir=tmp_path), "postgresql://db", "nats://n")
    assert "QUARTERDECK_GRPC_LISTEN" not in specs.gateway(8080).environment
    assert specs.grpc_address is None


def test_a_grpc_port_that_cannot_be_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="grpc_port is 65536; it must be from"):
        StackOptions(data_dir=tmp_path, grpc_port=65_536)
