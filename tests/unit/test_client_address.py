"""Where the client finds its gateway."""

from pathlib import Path

import pytest

from quarterdeck.address import resolve
from quarterdeck.errors import NotConfiguredError
from quarterdeck.stack.info import StackInfo, write_info


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of a stack that says it runs, and no other word on where the gateway is."""
    for name in ("QUARTERDECK_ADDRESS", "QUARTERDECK_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QUARTERDECK_DATA_DIR", str(tmp_path))
    info = StackInfo(
        address="http://127.0.0.1:1234",
        api_key="qd_stack",
        model=None,
        offline_model=False,
        model_url=None,
        database_url="",
        nats_url="",
        vcs_address="",
        data_dir=str(tmp_path),
        pid=1,
        processes={},
        started_at="",
        version="",
    )
    write_info(tmp_path / "stack.json", info)
    return tmp_path


def test_the_local_stack_is_the_default(stack):
    endpoint = resolve(None, None)
    assert (endpoint.address, endpoint.api_key) == ("http://127.0.0.1:1234", "qd_stack")


def test_the_environment_comes_before_the_local_stack(stack, monkeypatch):
    monkeypatch.setenv("QUARTERDECK_ADDRESS", "https://fleet.example/")
    monkeypatch.setenv("QUARTERDECK_API_KEY", "qd_fleet")
    endpoint = resolve(None, None)
    assert (endpoint.address, endpoint.api_key) == ("https://fleet.example", "qd_fleet")


def test_a_data_folder_that_was_named_comes_before_the_environment(stack, monkeypatch):
    monkeypatch.setenv("QUARTERDECK_ADDRESS", "https://fleet.example/")
    monkeypatch.setenv("QUARTERDECK_API_KEY", "qd_fleet")
    endpoint = resolve(None, None, data_dir=stack)
    assert (endpoint.address, endpoint.api_key) == ("http://127.0.0.1:1234", "qd_stack")


def test_the_local_stacks_key_is_not_sent_elsewhere(stack):
    assert resolve("https://fleet.example", None).api_key is None
    assert resolve("http://127.0.0.1:1234/", None).api_key == "qd_stack"


def test_the_key_is_not_shown(stack):
    assert "qd_stack" not in repr(resolve(None, None))


def test_without_a_stack_the_message_says_how_to_start_one(stack):
    (stack / "stack.json").unlink()
    with pytest.raises(NotConfiguredError, match="quarterdeck up"):
        resolve(None, None)


@pytest.mark.parametrize("address", ["localhost:80", "ftp://host", "http://", "/path"])
def test_an_address_must_be_an_http_url(stack, address):
    with pytest.raises(NotConfiguredError, match="must be a URL"):
        resolve(address, None)
