"""Which command runs the tests of a repository, told by its files. Reads a few small ones and executes nothing.

The order is the one that docs/verification.md lists: what the project itself calls its tests comes first.
"""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from services.agent.verification.looking import Looking

_MAKEFILES: Final = ("GNUmakefile", "makefile", "Makefile")
_INI_SECTIONS: Final = (("tox.ini", "[pytest]"), ("setup.cfg", "[tool:pytest]"))
_PYTEST_FILES: Final = ("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "conftest.py")
_NPM_PLACEHOLDER: Final = "no test specified"
_PACKAGE_MANAGERS: Final = (
    ("pnpm-lock.yaml", "pnpm test"),
    ("yarn.lock", "yarn test"),
    # `bun test` is bun's own runner, not the script.
    ("bun.lock", "bun run test"),
    ("bun.lockb", "bun run test"),
)
_GRADLE_FILES: Final = ("build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts")
_RAKEFILES: Final = ("Rakefile", "rakefile", "Rakefile.rb", "rakefile.rb")
_RAKE_TASKS: Final = ("TestTask", "task :test", "task test:", 'task "test"', "task 'test'")
_DOTNET: Final = ("*.sln", "*.slnx", "*.csproj", "*.fsproj", "*.vbproj")
_PHPUNIT_FILES: Final = ("phpunit.xml", "phpunit.xml.dist", "phpunit.dist.xml")


def detect(worktree: Path) -> str | None:
    """The command, one line for a shell; None where no tests are known to be there. ``worktree``: a resolved path."""
    looking = Looking(worktree)
    return next((command for find in _FINDERS if (command := find(looking)) is not None), None)


def _make(looking: Looking) -> str | None:
    makefile = next((name for name in _MAKEFILES if looking.has(name)), None)
    if makefile is None:
        return None
    text = looking.text(makefile).replace("\\\n", " ")
    return "make test" if any(_is_test_rule(line) for line in text.splitlines()) else None


def _is_test_rule(line: str) -> bool:
    """Whether a line of a makefile begins a rule for `test`, rather than a recipe's line or an assignment."""
    targets, colon, rest = line.partition(":")
    if not colon or line.startswith("\t") or "test" not in targets.split():
        return False
    rest = rest.removeprefix(":")
    # `test := x`, and `test: NAME = x`, which sets a variable for the rule and is none.
    return "=" not in targets and "=" not in rest.partition(";")[0].partition("#")[0]


def _pytest(looking: Looking) -> str | None:
    is_there = (
        any(looking.has(name) for name in _PYTEST_FILES)
        or "pytest" in _pyproject_tools(looking)
        or any(section in map(str.strip, looking.lines(name)) for name, section in _INI_SECTIONS)
        or any(looking.any_file(folder, "test_*.py", "*_test.py") for folder in ("", "tests", "test"))
    )
    return "python3 -m pytest" if is_there else None


def _pyproject_tools(looking: Looking) -> dict[str, Any]:
    try:
        tools = tomllib.loads(looking.text("pyproject.toml")).get("tool", {})
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}
    return tools if isinstance(tools, dict) else {}


def _npm(looking: Looking) -> str | None:
    script = _script(looking, "package.json")
    if not isinstance(script, str) or not script.strip() or _NPM_PLACEHOLDER in script:
        return None
    return next((command for lock, command in _PACKAGE_MANAGERS if looking.has(lock)), "npm test")


def _script(looking: Looking, path: str) -> object:
    """What a package calls `test`."""
    scripts = looking.json(path).get("scripts")
    return scripts.get("test") if isinstance(scripts, dict) else None


def _cargo(looking: Looking) -> str | None:
    return "cargo test" if looking.has("Cargo.toml") else None


def _go(looking: Looking) -> str | None:
    return "go test ./..." if looking.has("go.mod") else None


def _maven(looking: Looking) -> str | None:
    return "mvn -q test" if looking.has("pom.xml") else None


def _gradle(looking: Looking) -> str | None:
    if not any(looking.has(name) for name in _GRADLE_FILES):
        return None
    return "./gradlew test" if looking.is_executable("gradlew") else "gradle test"


def _mix(looking: Looking) -> str | None:
    return "mix test" if looking.has("mix.exs") else None


def _ruby(looking: Looking) -> str | None:
    prefix = "bundle exec " if looking.has("Gemfile") else ""
    if looking.has(".rspec") or looking.any_file("spec", "*_spec.rb"):
        return f"{prefix}rspec"
    text = "".join(looking.text(name) for name in _RAKEFILES)
    return f"{prefix}rake test" if any(task in text for task in _RAKE_TASKS) else None


def _dotnet(looking: Looking) -> str | None:
    return "dotnet test" if looking.any_file("", *_DOTNET) else None


def _php(looking: Looking) -> str | None:
    if _script(looking, "composer.json"):
        return "composer test"
    return "vendor/bin/phpunit" if any(looking.has(name) for name in _PHPUNIT_FILES) else None


_FINDERS: Final[tuple[Callable[[Looking], str | None], ...]] = (
    _make,
    _pytest,
    _npm,
    _cargo,
    _go,
    _maven,
    _gradle,
    _mix,
    _ruby,
    _dotnet,
    _php,
)
