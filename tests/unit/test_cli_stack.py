"""What `quarterdeck up` and `quarterdeck status` tell of a stack."""

import pytest

from quarterdeck.cli.stack import print_info
from quarterdeck.stack.info import StackInfo

SUBSCRIBER_URL = "nats://subscriber:secret@127.0.0.1:4222"


def told(capsys: pytest.CaptureFixture[str], subscriber_nats_url: str | None) -> str:
    info = StackInfo(
        address="http://127.0.0.1:1234",
        api_key="qd_stack",
        model=None,
        offline_model=False,
        model_url=None,
        database_url="postgresql://quarterdeck:hidden@127.0.0.1/db",
        nats_url="nats://quarterdeck:hidden@127.0.0.1:4222",
        subscriber_nats_url=subscriber_nats_url,
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
