"""Which command tests a repository: by what its files say, whatever else lies there."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from services.agent.verification import detect_in_base
from services.agent.verification.detection import detect
from services.agent.verification.looking import MAX_ENTRIES, MAX_FILE_BYTES
from services.jobs.models import Hold

NPM = json.dumps({"scripts": {"test": "vitest run"}})
RULE = "test:\n\ttrue\n"


def lay(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"Makefile": RULE}, "make test"),
        ({"GNUmakefile": "all lint test: build\n"}, "make test"),
        ({"makefile": "lint \\\n  test::\n\ttrue\n"}, "make test"),
        ({"Makefile": ".PHONY: test\ntest: ; @echo a=b\n"}, "make test"),
        ({"Makefile": "test: # A=B\n\ttrue\n"}, "make test"),
        ({"pyproject.toml": "[tool.pytest.ini_options]\n"}, "python3 -m pytest"),
        ({"pyproject.toml": 'tool = { pytest = { addopts = "-q" } }\n'}, "python3 -m pytest"),
        ({"pytest.ini": ""}, "python3 -m pytest"),
        ({"tox.ini": "[tox]\n\n[pytest]\n"}, "python3 -m pytest"),
        ({"setup.cfg": "[metadata]\n[tool:pytest]\n"}, "python3 -m pytest"),
        ({"tests/unit/deep/test_it.py": ""}, "python3 -m pytest"),
        ({"test/it_test.py": ""}, "python3 -m pytest"),
        ({"test_it.py": ""}, "python3 -m pytest"),
        ({"package.json": NPM}, "npm test"),
        ({"package.json": NPM, "package-lock.json": "{}"}, "npm test"),
        ({"package.json": NPM, "pnpm-lock.yaml": ""}, "pnpm test"),
        ({"package.json": NPM, "yarn.lock": ""}, "yarn test"),
        ({"package.json": NPM, "bun.lock": ""}, "bun run test"),
        ({"package.json": NPM, "bun.lockb": ""}, "bun run test"),
        ({"Cargo.toml": ""}, "cargo test"),
        ({"go.mod": ""}, "go test ./..."),
        ({"pom.xml": ""}, "mvn -q test"),
        ({"build.gradle": ""}, "gradle test"),
        ({"build.gradle.kts": "", "gradlew": "not executable"}, "gradle test"),
        ({"mix.exs": ""}, "mix test"),
        ({"Gemfile": "", "spec/models/user_spec.rb": ""}, "bundle exec rspec"),
        ({".rspec": ""}, "rspec"),
        ({"Gemfile": "", "Rakefile": "Rake::TestTask.new\n"}, "bundle exec rake test"),
        ({"Rakefile": "task :test do\nend\n"}, "rake test"),
        ({"App.sln": ""}, "dotnet test"),
        ({"App.fsproj": ""}, "dotnet test"),
        ({"composer.json": '{"scripts": {"test": ["@lint", "phpunit"]}}'}, "composer test"),
        ({"phpunit.xml.dist": ""}, "vendor/bin/phpunit"),
    ],
)
def test_each_kind_of_repository_has_its_command(tmp_path: Path, files: dict[str, str], command: str):
    assert detect(lay(tmp_path, files)) == command


def test_a_wrapper_that_can_be_executed_goes_before_the_program(tmp_path: Path):
    lay(tmp_path, {"build.gradle": "", "gradlew": "#!/bin/sh\n"})
    (tmp_path / "gradlew").chmod(0o755)
    assert detect(tmp_path) == "./gradlew test"


def test_the_order_is_the_documented_one(tmp_path: Path):
    signs = {
        "make test": "Makefile",
        "python3 -m pytest": "pytest.ini",
        "npm test": "package.json",
        "cargo test": "Cargo.toml",
        "go test ./...": "go.mod",
        "mvn -q test": "pom.xml",
        "gradle test": "build.gradle",
        "mix test": "mix.exs",
        "rspec": ".rspec",
        "dotnet test": "App.sln",
        "vendor/bin/phpunit": "phpunit.xml",
    }
    lay(tmp_path, dict.fromkeys(signs.values(), "") | {"Makefile": RULE, "package.json": NPM})
    for command, name in signs.items():
        assert detect(tmp_path) == command
        (tmp_path / name).unlink()
    assert detect(tmp_path) is None
    page = (Path(__file__).parents[3] / "docs" / "verification.md").read_text()
    found = [page.find(f"`{command}`") for command in signs]
    assert -1 not in found
    assert found == sorted(found)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"README.md": "test:\n"},
        {"Makefile": "build:\n\ttest: x\n"},
        {"Makefile": "test := 1\nTEST: x\ntesting: x\n.PHONY: test\n"},
        {"Makefile": "test: CFLAGS = -g\n"},
        {"GNUmakefile": "all:\n", "Makefile": RULE},
        {"package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}'},
        {"package.json": '{"scripts": {"test": " "}}'},
        {"package.json": '{"scripts": {"test": 1}}'},
        {"package.json": '{"scripts": ["test"]}'},
        {"package.json": '["test"]'},
        {"package.json": '{"scripts": {"test": "x"'},
        {"package.json": "[" * 100_000},
        {"package.json": NPM + " " * MAX_FILE_BYTES},
        {"pyproject.toml": "[tool.pytest.ini_options\n"},
        {"pyproject.toml": "tool = 1\n"},
        {"pyproject.toml": "a = " + "[" * 100_000},
        {"tests/helper.py": "", "tests/test_it.txt": ""},
        {"Rakefile": "task :default\n"},
        {"composer.json": "{}"},
        {"sub/Makefile": RULE},
        {"package.json/scripts": "", "Makefile/test": ""},
    ],
)
def test_nothing_else_counts(tmp_path: Path, files: dict[str, str]):
    assert detect(lay(tmp_path, files)) is None


def test_no_link_is_followed_and_no_pipe_waited_for(tmp_path: Path):
    outside = lay(tmp_path / "outside", {"Makefile": RULE, "tests/test_it.py": ""})
    worktree = lay(tmp_path / "worktree", {"README.md": ""})
    (worktree / "Makefile").symlink_to(outside / "Makefile")
    (worktree / "tests").symlink_to(outside / "tests")
    os.mkfifo(worktree / "package.json")
    assert detect(worktree) is None


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path):
    (tmp_path / "Makefile").write_bytes(b"\xff\0" * 1_000 + b"\ntest:\n")
    assert detect(tmp_path) == "make test"


def test_a_search_has_an_end(tmp_path: Path):
    lay(tmp_path, {f"tests/data/{number:05}": "" for number in range(MAX_ENTRIES)} | {"tests/z/test_it.py": ""})
    assert detect(tmp_path) is None


@dataclass
class Worktree:
    """A folder between a base with Go's tests and a patch that adds a makefile."""

    folder: Path
    restored: list[bytes]

    async def restore(self, _hold: Hold, patch: bytes) -> None:
        self.restored.append(patch)
        (self.folder / "Makefile").unlink(missing_ok=True)
        if patch:
            (self.folder / "Makefile").write_text(RULE)


@pytest.mark.parametrize(("patch", "restored"), [(b"", []), (b"adds a makefile", [b"", b"adds a makefile"])])
async def test_the_base_says_what_the_tests_are_not_the_work_on_it(
    tmp_path: Path, patch: bytes, restored: list[bytes]
) -> None:
    worktree = Worktree(lay(tmp_path, {"go.mod": "module x\n", **({"Makefile": RULE} if patch else {})}), [])
    found = await detect_in_base(worktree, Hold(uuid4(), uuid4(), 1, uuid4()), tmp_path, patch=patch)
    assert (found, worktree.restored, (tmp_path / "Makefile").exists()) == ("go test ./...", restored, bool(patch))
