import string
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.workspace.errors import PathRefusedError
from services.agent.workspace.paths import MAX_DEPTH, is_git_name, joined, parse

ROOT = PurePosixPath("/srv/run/tree")


def located(raw: str) -> str:
    return joined(parse(raw, [ROOT]))


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("", "."),
        (".", "."),
        ("./", "."),
        ("a", "a"),
        ("./a//b/./c/", "a/b/c"),
        ("/srv/run/tree", "."),
        ("/srv/run/tree/a/b", "a/b"),
        ("//srv/run/tree/a", "a"),
        ("...", "..."),
        ("a b\tc", "a b\tc"),
        (".github/workflows/ci.yml", ".github/workflows/ci.yml"),
        (".gitignore", ".gitignore"),
        ("git", "git"),
    ],
)
def test_what_lies_beneath_the_root_is_accepted(raw: str, path: str) -> None:
    assert located(raw) == path


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ("..", "'..'"),
        ("a/../b", "'..'"),
        ("/srv/run/tree/../other", "'..'"),
        ("/srv/run/treehouse", "outside"),
        ("/", "outside"),
        ("/etc/passwd", "outside"),
        ("a\0b", "NUL"),
        ("a\ud800", "surrogate"),
        ("b/\udcff.txt", "surrogate"),
        ("x" * 5_000, "5000 characters"),
        ("a/" * (MAX_DEPTH + 1), "levels deep"),
    ],
)
def test_anything_else_is_refused_in_words(raw: str, word: str) -> None:
    with pytest.raises(PathRefusedError, match=word):
        located(raw)


@pytest.mark.parametrize(
    "name",
    [
        ".git",
        ".GIT",
        ".Git",
        ".git ",
        ".git.",
        ".git. . ",
        ".g\u200cit",
        "\ufeff.git",
        ".git\u206f",
        ".git::$INDEX_ALLOCATION",
        ".git:x",
        "git~1",
        "GIT~1",
        "a\\.git",
        ".git\\config",
    ],
)
@pytest.mark.parametrize("around", ["{}", "a/{}", "{}/config", "a/{}/hooks/pre-commit"])
def test_git_metadata_is_closed_under_every_name(name: str, around: str) -> None:
    with pytest.raises(PathRefusedError, match="closed"):
        located(around.format(name))


@pytest.mark.parametrize("name", [".gitattributes", ".git-blame-ignore-revs", ".gi", "x.git", "git", "git~2", ".git_"])
def test_names_that_only_resemble_it_stay_open(name: str) -> None:
    assert not is_git_name(name)


@given(st.text(alphabet=string.ascii_letters + "./\\~ \0\u200c\ud800-", max_size=40))
def test_what_is_accepted_is_a_plain_relative_path(raw: str) -> None:
    try:
        parts = parse(raw, [ROOT])
    except PathRefusedError:
        return
    assert all(part not in {"", ".", ".."} and "/" not in part and "\0" not in part for part in parts)
    assert not any(is_git_name(part) for part in parts)
    assert parse(joined(parts), [ROOT]) == parts
