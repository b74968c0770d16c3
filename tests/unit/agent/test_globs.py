import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.tools.calls import ToolError
from services.agent.tools.globs import Glob


def accepts(glob: str, path: str) -> bool:
    return Glob.parse(glob).accepts(tuple(path.split("/")))


@pytest.mark.parametrize(
    ("glob", "inside", "left"),
    [
        ("*.py", ["a.py", "x/y/a.py"], ["a.pyc", "a.py/x.c"]),
        ("/*.py", ["a.py"], ["x/a.py"]),
        ("src/*.py", ["src/a.py"], ["src/x/a.py", "y/src/a.py"]),
        ("src/**/*.py", ["src/a.py", "src/x/y/a.py"], ["a.py", "src/a.c"]),
        ("**/*.py", ["a.py", "x/y/a.py"], ["a.c"]),
        ("**/*", ["a", "x/y/a"], []),
        ("src", ["src/a.py", "x/src/a.py", "src"], ["srcs/a.py"]),
        ("src/", ["src/a.py", "x/src/b/a.py"], ["srcs/a.py"]),
        ("src/app", ["src/app/a.py"], ["app/a.py"]),
        ("*.{ts,tsx}", ["a.ts", "x/a.tsx"], ["a.tsy", "a.js"]),
        ("{a,b{c,d}}.py", ["a.py", "bc.py", "bd.py"], ["b.py", "c.py"]),
        ("a?.[ch]", ["ab.c", "aä.h"], ["a.c", "ab.x"]),
        ("./a.py", ["a.py"], ["b.py"]),
        ("!*.lock", ["a.py"], ["poetry.lock", "x/y.lock"]),
        ("**/test/**", ["test/a", "x/test/y/a"], ["testing/a"]),
    ],
)
def test_globs_mean_what_a_gitignore_user_expects(glob: str, inside: list[str], left: list[str]) -> None:
    assert [path for path in inside + left if accepts(glob, path)] == inside


@pytest.mark.parametrize("glob", ["", "/", "!", "./"])
def test_a_glob_that_matches_nothing_is_refused(glob: str) -> None:
    with pytest.raises(ToolError, match="matches nothing"):
        Glob.parse(glob)


def test_braces_cannot_multiply_without_bound() -> None:
    with pytest.raises(ToolError, match="alternatives"):
        Glob.parse("{a,b}" * 30)


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4))
def test_any_glob_either_parses_or_is_refused(glob: str, path: list[str]) -> None:
    try:
        parsed = Glob.parse(glob)
    except ToolError:
        return
    assert parsed.accepts(tuple(path)) in {True, False}


@pytest.mark.parametrize("glob", ["*a" * 90 + "b", "**/" * 60 + "b", "**/*a" * 40 + "b"])
def test_no_glob_takes_long(glob: str) -> None:
    started = time.process_time()
    accepts(glob, "/".join(["a" * 200] * 60))
    assert time.process_time() - started < 1
