"""Which prompts the offline model understands, which it refuses, and which hold nothing for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.offline_model.instructions import (
    UNDERSTOOD_FORM,
    Replacement,
    UnclearInstructionError,
    parse_replacements,
)


@pytest.mark.parametrize(
    "prompt",
    [
        "replace all occurrences of 'a b' with 'c'",
        'REPLACE ALL OCCURRENCES OF "a b" WITH "c"',
        "Replace every instance of `a b` by “c”.",
        "please replace the string \u2018a b\u2019 with «c»",
        "Change 'a b' to 'c'",
        "Replace all occurrences of\n  'a b'\nwith\n  'c'",
        "You work in the repository demo.\n\n<task>\nreplace 'a b' with 'c'\n</task>\n\nIn your answer be brief.",
        "The prompt was: \"replace all occurrences of 'a b' with 'c'\"",
        "Do not change anything else. Replace 'a b' with 'c'",
        "replace 'a b' with 'c' in the whole repository",
        "replace 'a b' with 'c' in all files.",
        "replace 'a b' with 'c' across the demo repository",
        "replace 'a b' with 'c' in order to please me",
        "In the repository demo, replace 'a b' with 'c'",
    ],
)
def test_one_replacement_everywhere(prompt: str) -> None:
    assert parse_replacements(prompt) == (Replacement("a b", "c"),)


@pytest.mark.parametrize(
    ("words", "glob"),
    [
        ("in *.py", "*.py"),
        ("in *.py files", "*.py"),
        ("in all .py files", "*.py"),
        ("only in README.md.", "README.md"),
        ("in `src/**/*.ts`", "src/**/*.ts"),
        ("in ./src/", "src/**"),
        ("within the docs directory", "docs/**"),
        ("in all files under docs/", "docs/**"),
        ("in files matching *.c", "*.c"),
        ("in src/*.{ts,tsx} and a.js", "{src/*.{ts,tsx},a.js}"),
        ("in *.py, *.md and setup.cfg files", "{*.py,*.md,setup.cfg}"),
        ("in all Python files in the repository", "*.py"),
        ("in YAML files", "{*.yaml,*.yml}"),
        (",\nin *.py files", "*.py"),
    ],
)
def test_words_that_restrict_where(words: str, glob: str) -> None:
    (replacement,) = parse_replacements(f"replace all occurrences of 'a' with 'b' {words}")

    assert replacement.glob == glob


@pytest.mark.parametrize(
    ("globs", "covered", "others"),
    [
        ((), ["a", "b/c"], []),
        (("*.py",), ["a.py", "b/c/a.py"], ["a.pyi", "a.py/b"]),
        (("src/*.py", "README.md"), ["src/a.py", "README.md", "b/README.md"], ["src/b/a.py", "x/src/a.py"]),
        (("src/**",), ["src/a", "src/b/c"], ["srcs/a", "b/src/a"]),
        (("src/**/*.{ts,tsx}",), ["src/a.ts", "src/b/c/a.tsx"], ["a.ts", "src/a.js"]),
        (("lib/a.d",), ["lib/a.d", "lib/a.d/b"], ["a.d"]),
        (("[ab]?.c",), ["a1.c", "x/b2.c"], ["c1.c", "a.c"]),
    ],
)
def test_which_paths_a_replacement_covers(globs: tuple[str, ...], covered: list[str], others: list[str]) -> None:
    replacement = Replacement("a", "b", globs)

    assert [path for path in covered + others if replacement.covers(path)] == covered


def test_words_that_restrict_where_may_come_earlier() -> None:
    expected = (Replacement("a", "b", ("*.py",)),)

    assert parse_replacements("replace 'a' in *.py files with 'b'") == expected
    assert parse_replacements("In *.py files, replace 'a' with 'b'") == expected


@pytest.mark.parametrize(
    ("prompt", "globs"),
    [
        ("replace 'a' with 'b' and 'c' with 'd'", ((), ())),
        ("replace 'a' with 'b'; replace 'c' with 'd'", ((), ())),
        ("Replace 'a' with 'b'.\nThen also replace all 'c' with 'd'.", ((), ())),
        ("Replace the following strings:\n- 'a' with 'b'\n- 'c' with 'd'\n", ((), ())),
        ("1. replace 'a' with 'b'\n2. replace 'c' with 'd'", ((), ())),
        ("replace 'a' with 'b' and 'c' with 'd' in *.md", (("*.md",), ("*.md",))),
        ("replace 'a' with 'b' in *.py and 'c' with 'd' in *.md", (("*.py",), ("*.md",))),
        ("replace 'a' with 'b'; replace 'c' with 'd' in *.md", ((), ("*.md",))),
    ],
)
def test_several_replacements(prompt: str, globs: tuple[tuple[str, ...], ...]) -> None:
    assert parse_replacements(prompt) == (Replacement("a", "b", globs[0]), Replacement("c", "d", globs[1]))


@pytest.mark.parametrize(
    ("prompt", "old", "new"),
    [
        (r"replace 'it\'s' with 'it is'", "it's", "it is"),
        ("replace 'don't' with 'do not'", "don't", "do not"),
        (r"replace 'C:\' with 'D:\'", "C:\\", "D:\\"),
        (r"replace '\n' with '\t'", r"\n", r"\t"),
        ("replace 'gone' with ''", "gone", ""),
        ("replace `f('x')` with `g(\"x\")`", "f('x')", 'g("x")'),
        ("replace 'replace' with 'with'", "replace", "with"),
        ("replace 'a' with 'a'", "a", "a"),
    ],
)
def test_what_stands_in_quotes_is_taken_literally(prompt: str, old: str, new: str) -> None:
    assert parse_replacements(prompt) == (Replacement(old, new),)


@pytest.mark.parametrize(
    "prompt",
    ["", "fix the bug", "replace foo with bar", "compare 'x' to 'y'", "replace 'a\nb' with 'c'"],
)
def test_prompts_without_an_instruction(prompt: str) -> None:
    assert parse_replacements(prompt) == ()


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("replace 'a' with 'b' except in tests", "except in tests"),
        ("replace 'a' with 'b' (case-insensitive)", "case-insensitive"),
        ("replace 'a' with 'b' in the tests", "in the tests"),
        ("In the tests, replace 'a' with 'b'", "in the tests"),
        ("replace 'a' with 'b' in *.py files under src/", "under src/"),
        ("never replace 'a' with 'b'", "'a'"),
        ("Please don't replace 'a' with 'b'", "'a'"),
        ("replace 'a' with 'b', and where that fails 'c' with 'd'", "'c' with 'd'"),
        ("replace '' with 'x'", "'' with 'x'"),
        ("replace 'a' with 'b' or perhaps 'c' with 'd'", "'c' with 'd'"),
    ],
)
def test_what_would_do_more_than_was_asked_is_refused(prompt: str, named: str) -> None:
    with pytest.raises(UnclearInstructionError, match="it cannot tell") as caught:
        parse_replacements(prompt)

    assert named in str(caught.value)


def test_the_form_that_is_advertised_is_understood() -> None:
    assert parse_replacements(UNDERSTOOD_FORM) == (Replacement("A", "B", ("*.py",)),)


_PLAIN = st.text(st.characters(exclude_characters='"\n\r\\', exclude_categories=["Cs"]), max_size=30)


@given(old=_PLAIN.filter(bool), new=_PLAIN, before=st.sampled_from(["", "Repository: demo\n\n", "Hello! "]))
def test_any_text_without_its_quotes_survives(old: str, new: str, before: str) -> None:
    prompt = f'{before}replace all occurrences of "{old}" with "{new}"'

    assert parse_replacements(prompt)[0] == Replacement(old, new)


@given(st.text(st.sampled_from("replace 'a' with \"b\" in *.py and `c`;,.\n")))
def test_no_prompt_breaks_it(prompt: str) -> None:
    try:
        replacements = parse_replacements(prompt)
    except UnclearInstructionError:
        return
    assert all(each.old and "\n" not in each.old for each in replacements)
