"""Arguments that no schema expects: what a model that was talked into it, or is broken, may send to a tool."""

from typing import Any

from hypothesis import strategies as st

from services.agent.tools import ToolSpec
from tests.fuzz.hostile import COMPOSED, DECOMPOSED, ESCAPE_NAME, NEWLINE_NAME

ROOT, BASE = "<root>", "<base>"
"""Stand for the folders of the example, which are known only when it runs."""

_PLAIN = ["a.txt", "A.TXT", "sub", "sub/b.txt", "new", "crlf.txt", "sparse", "noise.bin", "pipe", COMPOSED, DECOMPOSED]
_LEADING_OUT = ["link", "chain", "loop", "environment", "sub/up", "sub/file", "outside", "secret.txt", ".."]
_GIT = [".git", ".GIT", ".git.", ".git ", ".g\u200cit", ".git::$INDEX_ALLOCATION", "git~1", ".git\\config", "sub/.GIT"]
_ODD = ["", ".", "...", "a.", "a ", "~", "-", "--", "\uff0e\uff0e", "..\u2215..", "%2e%2e", "..\\..", "$HOME", "a\0b"]
_OUTPUTS = [
    "@outputs",
    "@outputs/1.txt",
    "@outputs/7.txt",
    "@outputs/\uff11.txt",
    "@outputs/../outside",
    "@outputs/01.txt",
]
_STARTS = ["", "", "", "/", "//", "./", f"{ROOT}/", f"{BASE}/", f"{ROOT}/../", "/proc/self/", "file://", "@outputs/"]
_WORDS = [*_PLAIN, *_LEADING_OUT, *_GIT, *_ODD, *_OUTPUTS, "config", NEWLINE_NAME, ESCAPE_NAME]
_PIECES = ["a", "\u00e9", "\n", "../", "d/", "(", "(a*)*", "{a,", "**/", "[", "\ud800", "\x1b[", "\0", "\\"]
_TEXTS = [
    "inside",
    "needle",
    "inside\n",
    "broken\n",
    "^",
    ".*",
    "*.txt",
    "!*",
    "git status",
    "make $(id)",
    "x'y",
    "done",
]
_NUMBERS = [0, -1, 1, 2, 200, 2**31, 2**63, 10**30, 10**4_000, 1.0, 1e308, float("inf"), float("nan"), True, "1", None]

TRAPS = [
    *("link/secret.txt", "chain/secret.txt", "sub/up/outside/secret.txt", "sub/file", "environment", "pipe", "sparse"),
    *(".git/config", ".GIT/config", "sub/.GIT/config", "../outside/secret.txt", f"{ROOT}/../outside/secret.txt"),
    *(f"{BASE}/outside/secret.txt", "@outputs/../../outside/secret.txt", "link", "link/new", ".git/new", ESCAPE_NAME),
    *("a.txt", "crlf.txt", "sub/b.txt", "noise.bin", "@outputs/1.txt", "new/file", "x" * 5_000),
]
"""Paths that lead out, lead into Git's metadata, or lead to what is no plain file; and some that lead nowhere bad."""

paths = st.one_of(
    st.sampled_from(TRAPS),
    st.builds(
        lambda start, names: start + "/".join(names),
        st.sampled_from(_STARTS),
        st.lists(st.one_of(st.sampled_from(_WORDS), st.text(st.characters(), max_size=4)), max_size=4),
    ),
)
repeated = st.builds(
    lambda piece, times: piece * times, st.sampled_from(_PIECES), st.sampled_from([3, 90, 5_000, 300_000])
)
strings = st.one_of(st.sampled_from(_TEXTS), paths, st.text(st.characters(), max_size=30), repeated)


def nested(depth: int, *, in_objects: bool) -> Any:
    """Something within itself, ``depth`` times."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if in_objects else [value]
    return value


deep = st.builds(nested, st.sampled_from([3, 250, 1_000, 20_000]), in_objects=st.booleans())
anything = st.one_of(
    deep,
    st.recursive(
        st.one_of(st.sampled_from(_NUMBERS), strings, st.integers(), st.floats()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=4)
        ),
        max_leaves=6,
    ),
)


def arguments_of(spec: ToolSpec) -> st.SearchStrategy[Any]:
    """Mostly of the right types with hostile values, so that they get past the schema; sometimes anything at all."""
    fields: dict[str, Any] = spec.input_schema["properties"]
    required = {name: _values(name, fields[name]) for name in spec.input_schema["required"]}
    optional = {name: _values(name, rules) for name, rules in fields.items() if name not in required}
    fitting = st.fixed_dictionaries(required, optional=optional)
    return st.one_of(fitting, fitting, fitting, fitting, st.builds(_with_more, fitting, strings, anything), anything)


def about(path: str) -> list[tuple[str, Any]]:
    """One call of each tool that takes a path: those that read come first, so that the others may write."""
    return [
        ("read_file", {"path": path}),
        ("read_file", {"path": path, "start_line": 1, "end_line": 2}),
        ("list_files", {"directory": path}),
        ("search_code", {"path": path, "pattern": ".", "include_ignored": True}),
        ("edit_file", {"path": path, "old_string": "e", "new_string": "x", "replace_all": True}),
        ("write_file", {"path": path, "content": "x"}),
        ("move_file", {"old_path": "a.txt", "new_path": path}),
        ("move_file", {"old_path": path, "new_path": "moved"}),
        ("delete_file", {"path": path}),
        ("run_command", {"command": path}),
    ]


def _with_more(arguments: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return {**arguments, name: value}


def _values(name: str, rules: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in rules:
        return st.one_of(st.sampled_from(rules["enum"]), anything)
    usual: st.SearchStrategy[Any]
    match rules["type"]:
        case "integer":
            usual = st.one_of(st.integers(1, 300), st.sampled_from(_NUMBERS))
        case "boolean":
            usual = st.booleans()
        case _ if "path" in name or name == "directory":
            usual = paths
        case _:
            usual = strings
    return st.one_of(usual, usual, usual, usual, usual, anything)


def located(value: Any, *, root: str, base: str) -> Any:
    """``value`` with the folders of the example in place of what stands for them (not within deep structures)."""
    if isinstance(value, str):
        return value.replace(ROOT, root).replace(BASE, base)
    if isinstance(value, dict):
        return {
            key: located(each, root=root, base=base) if isinstance(each, str) else each for key, each in value.items()
        }
    return value
