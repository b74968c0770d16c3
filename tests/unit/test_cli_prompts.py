"""What `submit` takes for a prompt and for a repository."""

import io
from pathlib import Path

import pytest
import typer

from quarterdeck.cli.prompts import read_prompt, repository_url


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_argument_is_the_prompt():
    assert read_prompt("do it", None) == "do it"


@pytest.mark.parametrize("argument", [None, "-"])
def test_a_pipe_is_read(monkeypatch, argument):
    monkeypatch.setattr("sys.stdin", io.StringIO("from the pipe\n"))
    assert read_prompt(argument, None) == "from the pipe\n"


def test_a_file_is_read(tmp_path: Path):
    file = tmp_path / "prompt.txt"
    file.write_text("from the file")
    assert read_prompt(None, file) == "from the file"


def test_a_terminal_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal())
    with pytest.raises(typer.BadParameter, match="there is no prompt"):
        read_prompt(None, None)


def test_two_sources_are_refused(tmp_path: Path):
    with pytest.raises(typer.BadParameter, match="not both"):
        read_prompt("do it", tmp_path / "prompt.txt")


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_file_without_a_prompt_is_refused_by_its_name(tmp_path: Path, content):
    file = tmp_path / "prompt.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(typer.BadParameter, match=r"prompt\.txt"):
        read_prompt(None, file)


def test_a_blank_prompt_is_refused():
    with pytest.raises(typer.BadParameter, match="empty"):
        read_prompt("  ", None)


@pytest.mark.parametrize(
    "url",
    ["https://forge.example/x.git", "ssh://git@forge.example/x", "git@forge.example:team/x.git", "file:///srv/x.git"],
)
def test_a_url_stays_as_it_is(url):
    assert repository_url(url) == url


def test_a_folder_becomes_an_absolute_path(tmp_path: Path, monkeypatch):
    (tmp_path / "repo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert repository_url("repo") == str(tmp_path / "repo")
    assert repository_url("./repo/") == str(tmp_path / "repo")


@pytest.mark.parametrize("typed", ["no/such/folder", "./nothing", "word", ""])
def test_what_is_neither_is_refused(tmp_path: Path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(typer.BadParameter, match="neither a folder here nor a Git URL"):
        repository_url(typed)
