"""What a command takes from `.env`, and what the stack's processes are told of files."""

from pathlib import Path

import pytest

from quarterdeck.cli.env_file import take_env_file
from quarterdeck.stack.environment import VCS, passed_on
from quarterdeck.stack.errors import StackStartError


def test_what_the_environment_says_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text('# keys\nexport CODEBOT_API_KEYS="a,b"\nCODEBOT_MAX_WORKERS=7\nPORT=\n')
    monkeypatch.setattr("os.environ", environment := {"CODEBOT_MAX_WORKERS": "2"})
    assert take_env_file(tmp_path) == ["CODEBOT_API_KEYS"]
    assert environment == {"CODEBOT_API_KEYS": "a,b", "CODEBOT_MAX_WORKERS": "2"}


def test_no_such_file_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    assert take_env_file(tmp_path) == []
    (tmp_path / ".env").write_bytes(b"KEY=\xff\n")
    with pytest.raises(StackStartError, match=r"\.env cannot be read"):
        take_env_file(tmp_path)


def test_files_are_meant_from_where_the_stack_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = {
        "GITHUB_APP_PRIVATE_KEY_PATH": "keys/app.pem",
        "GITHUB_APP_ID": "7",
        "QUARTERDECK_GIT_KNOWN_HOSTS": "/etc/h",
    }
    assert passed_on(*VCS, source=told) == told | {"GITHUB_APP_PRIVATE_KEY_PATH": str(tmp_path / "keys/app.pem")}
