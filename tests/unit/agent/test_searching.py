import asyncio
import os
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.agent.tools import Toolbox, ToolCall, ripgrep
from services.agent.tools.globs import Glob
from services.agent.tools.printed import Matches, Names
from services.agent.tools.scope import Scope
from services.agent.tools.showing import MAX_OUTPUT_CHARACTERS
from tests.unit.agent.conftest import Use

FILES = ("a.py", "src/b.py", "src/deep/c.ts", "src/deep/d.py", "other/e.py", "other/src/f.py", ".hidden/g.py")


@pytest.fixture
def tree(root: Path) -> Path:
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"before\nneedle in {name}\nafter\n")
    return root


async def test_one_directory_is_listed_with_marks(tree: Path, use: Use) -> None:
    (tree / "link").symlink_to("a.py")
    (tree / ".git").mkdir()
    assert (await use("list_files")).content == ".hidden/\na.py\nlink@\nother/\nsrc/"
    assert (await use("list_files", directory="src")).content == "src/b.py\nsrc/deep/"
    assert (await use("list_files", limit=2)).content == ".hidden/\na.py\n[3 more entries left out]"
    assert "is a file" in (await use("list_files", directory="a.py")).content
    assert "does not exist" in (await use("list_files", directory="none")).content


async def test_a_recursive_listing_leaves_out_what_is_ignored(tree: Path, use: Use) -> None:
    (tree / ".gitignore").write_text("other/\n*.ts\n")
    (tree.parent / ".gitignore").write_text("*\n")
    listed = await use("list_files", recursive=True)
    assert listed.content == ".gitignore\n.hidden/g.py\na.py\nsrc/b.py\nsrc/deep/d.py"
    every = await use("list_files", recursive=True, include_ignored=True)
    assert set(every.content.splitlines()) == {".gitignore", *FILES}
    assert (await use("list_files", recursive=True, limit=1)).content == ".gitignore\n[4 more entries left out]"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"glob": "*.py"}, ["a.py"]),
        ({"glob": "*.py", "directory": "src"}, ["src/b.py"]),
        ({"glob": "*.py", "directory": "src", "recursive": True}, ["src/b.py", "src/deep/d.py"]),
        ({"glob": "src/**/*.{ts,py}"}, ["src/b.py", "src/deep/c.ts", "src/deep/d.py"]),
        ({"glob": "**/*.ts"}, ["src/deep/c.ts"]),
        ({"glob": "src", "recursive": True}, ["other/src/f.py", "src/b.py", "src/deep/c.ts", "src/deep/d.py"]),
        ({"glob": "!*.py", "recursive": True}, ["src/deep/c.ts"]),
        ({"glob": "*.c", "recursive": True}, ["No files."]),
    ],
)
async def test_a_glob_keeps_what_matches(tree: Path, use: Use, arguments: dict[str, object], names: list[str]) -> None:
    assert (await use("list_files", **arguments)).content.splitlines() == names


async def test_a_gitignore_that_lets_names_through_does_not_undo_path_and_glob(tree: Path, use: Use) -> None:
    (tree / ".gitignore").write_text("*\n!*/\n!*.py\n")
    assert (await use("list_files", glob="*.ts", recursive=True)).content == "No files."
    assert (await use("list_files", directory="src", recursive=True)).content == "src/b.py\nsrc/deep/d.py"
    found = await use("search_code", pattern="needle", path="src/deep")
    assert found.content == "src/deep/d.py:2:needle in src/deep/d.py"


async def test_matches_come_with_path_and_line(tree: Path, use: Use) -> None:
    found = await use("search_code", pattern="needle", path="src")
    assert found.content.splitlines() == [
        "src/b.py:2:needle in src/b.py",
        "src/deep/c.ts:2:needle in src/deep/c.ts",
        "src/deep/d.py:2:needle in src/deep/d.py",
    ]
    around = await use("search_code", pattern="NEEDLE", path="a.py", ignore_case=True, context=1)
    assert around.content == "a.py-1-before\na.py:2:needle in a.py\na.py-3-after"
    assert (await use("search_code", pattern="NEEDLE")).content.startswith("No matches.")
    assert (await use("search_code", pattern=r"needle in \S+\.ts$", glob="*.ts")).content.count("\n") == 0


async def test_what_is_too_much_is_counted(tree: Path, use: Use) -> None:
    cut = await use("search_code", pattern="needle", max_results=2)
    assert cut.content.splitlines()[-1] == "[5 more matches left out]"
    assert len(cut.content.splitlines()) == 3
    (tree / "many").write_text(("needle " + "x" * 700 + "\n") * 1_000)
    much = (await use("search_code", pattern="needle", path="many", max_results=900)).content
    assert much.endswith("[100 more matches left out]")
    assert "characters left out …]" in much
    assert len(much) < MAX_OUTPUT_CHARACTERS + 100


async def test_endless_output_is_stopped(tree: Path, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ripgrep, "_MAX_STDOUT_BYTES", 100_000)
    (tree / "many").write_text("needle\n" * 200_000)
    found = await use("search_code", pattern="needle", path="many", max_results=1)
    assert "many:1:needle\n[at least " in found.content


@pytest.mark.parametrize("pattern", ["(", "[z-a]", "a{99999}{9999}", "\\", "a\nb"])
async def test_a_bad_pattern_is_an_error_in_the_words_of_ripgrep(tree: Path, use: Use, pattern: str) -> None:
    failed = await use("search_code", pattern=pattern)
    assert failed.is_error
    assert "The pattern cannot be searched for: " in failed.content
    assert str(tree) not in failed.content


@pytest.mark.parametrize("pattern", ["--files", "-e", "--pre=/bin/sh", "-f/etc/passwd"])
async def test_a_pattern_is_never_an_option(tree: Path, use: Use, pattern: str) -> None:
    (tree / "dash").write_text(f"x {pattern} y\n")
    assert (await use("search_code", pattern=pattern)).content == f"dash:1:x {pattern} y"


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        (r"\d", ["x9", r"a\d 7", "9-9"]),
        (r"^[a-z\d]+$", ["x9", "no"]),
        (r"[^\D]", ["x9", r"a\d 7", "9-9"]),
        (r"^\D+$", ["٣", "no"]),
        (r"\\d", [r"a\d 7"]),
        (r"9[\d-]\d", ["9-9"]),
        (r"\x{39}", ["x9", "9-9"]),
    ],
)
async def test_a_digit_is_one_of_ten(root: Path, use: Use, pattern: str, lines: list[str]) -> None:
    """Wherever an escape of a digit stands, and nothing else that looks like one is touched."""
    (root / "f").write_text("x9\n٣\na\\d 7\n9-9\nno\n")
    found = await use("search_code", pattern=pattern)
    assert [line.split(":", 2)[2] for line in found.content.splitlines()] == lines


async def test_git_metadata_is_not_searched(tree: Path, use: Use) -> None:
    for name in (".git", ".GIT", ".git ", "sub/.Git"):
        (tree / name).mkdir(parents=True)
        (tree / name / "config").write_text("needle in Git\n")
    assert "needle in Git" not in (await use("search_code", pattern="needle", include_ignored=True)).content
    assert "config" not in (await use("list_files", recursive=True, include_ignored=True)).content


async def test_a_name_full_of_wildcards_can_be_searched_in(root: Path, use: Use) -> None:
    for name in ("a[b]*{c}!#", " sp ace ", "new\nline", "ünï"):
        (root / name).mkdir()
        (root / name / "f").write_text("needle\n")
        found = await use("search_code", pattern="needle", path=name)
        assert found.content == f"{name}/f:1:needle".replace("\n", "\\x0a")


async def child_of(test: asyncio.Task[object]) -> psutil.Process:
    """The process that ``test`` started, as soon as there is one."""
    async with asyncio.timeout(10):
        while not test.done():
            for child in psutil.Process().children():
                if child.name() == "rg":
                    return child
            await asyncio.sleep(0)
    raise AssertionError(f"it started no process: {test.result()}")


async def test_a_search_that_hangs_is_stopped(tree: Path, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ripgrep, "DEADLINE_SECONDS", 0.2)
    os.mkfifo(tree / "src/.gitignore")
    stopped = await use("search_code", pattern="needle")
    assert stopped.is_error
    assert "took longer" in stopped.content
    assert [child for child in psutil.Process().children() if child.name() == "rg"] == []


async def test_a_cancelled_search_leaves_no_process(tree: Path, toolbox: Toolbox) -> None:
    os.mkfifo(tree / "src/.gitignore")
    calls = [ToolCall(str(number), "search_code", {"pattern": "needle"}) for number in range(3)]
    running = asyncio.create_task(toolbox.run(calls))
    child = await child_of(running)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not child.is_running()


async def test_an_endless_ignore_file_does_not_take_the_memory(tree: Path, use: Use) -> None:
    (tree / "src/.gitignore").symlink_to("/dev/zero")
    stopped = await use("search_code", pattern="needle")
    assert stopped.is_error
    assert "too much memory" in stopped.content


async def test_the_text_of_a_linked_ignore_file_is_not_told(tree: Path, outside: Path, use: Use) -> None:
    (outside / "secret.txt").write_text("[z-a] the secret outside\n")
    (tree / ".gitignore").symlink_to(outside / "secret.txt")
    for pattern in ("needle", "("):
        assert "secret outside" not in (await use("search_code", pattern=pattern)).content


async def test_ripgrep_sees_no_environment(tree: Path, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tree.parent / "ripgreprc"
    config.write_text("--max-count=1\n--glob=!a.py\n")
    monkeypatch.setenv("RIPGREP_CONFIG_PATH", str(config))
    os.mkfifo(tree / "src/.gitignore")
    running = asyncio.create_task(use("search_code", pattern="needle"))
    child = await child_of(running)
    assert child.environ() == {}
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


OUTPUT = (
    b'./a:1:x\x001:one\n./b.bin: binary file matches (found "\\0" byte around offset 3)\n./c\0002-two\n./d\0003:three\n'
)


@given(st.lists(st.integers(0, len(OUTPUT)), max_size=8))
def test_output_means_the_same_however_it_is_cut(cuts: list[int]) -> None:
    matches = Matches(lambda _: True, 10)
    edges = [0, *sorted(cuts), len(OUTPUT)]
    for start, end in pairwise(edges):
        assert matches.take(OUTPUT[start:end])
    assert matches.text() == "a:1:x:1:one\nc-2-two\nd:3:three"


@given(st.binary(max_size=200))
def test_any_output_can_be_taken(noise: bytes) -> None:
    matches, names = Matches(lambda _: True, 10), Names(lambda _: True, 10)
    matches.take(noise + b"\n")
    names.take(noise + b"\0")
    matches.text().encode()
    assert len(names.kept) + names.left_out == noise.count(b"\0") + 1


NAME = st.text(alphabet="ab.é[*", min_size=1, max_size=2).filter(lambda name: name.strip("."))


@example({"a", "b/a", "c/b"}, "a", ())
@example({"a", "b/a", "a/b"}, "**", ())
@example({"a", "b/a", "c/b/a"}, "**/**/a/**", ())
@example({"a.b", "b/a.b"}, "{a,b/a}.*/", ())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.sets(st.lists(NAME, min_size=1, max_size=3).map("/".join), min_size=1, max_size=6),
    glob=st.none() | st.text(alphabet="ab.*?é/[]{},!", min_size=1, max_size=6).filter(lambda glob: glob.strip("!/.")),
    directory=st.lists(NAME, max_size=2).map(tuple),
)
async def test_the_rules_given_to_ripgrep_hide_nothing_that_is_wanted(
    tmp_path_factory: pytest.TempPathFactory, files: set[str], glob: str | None, directory: tuple[str, ...]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    made = [name for name in sorted(files) if not any(other.startswith(f"{name}/") for other in files)]
    for name in made:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    scope = Scope(directory, Glob.parse(glob) if glob else None)
    names = Names(scope.wants, 100)
    await ripgrep.ripgrep(["--files"], root=root, sink=names.take, rules=scope.rules())
    assert set(names.kept) == {name for name in made if scope.wants(tuple(name.split("/")))}
