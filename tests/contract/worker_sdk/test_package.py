"""What is published: the compiled files are those of the source, and the document's example runs as it is printed."""

import json
from pathlib import Path

import pytest

from tests.contract.worker_sdk.document import example
from tests.contract.worker_sdk.standin import CONTENTS, StandIn
from tests.contract.worker_sdk.toolchain import NAME, SDK, compile_with, node

STRICT = ("--strict", "--exactOptionalPropertyTypes", "--module", "nodenext", "--target", "es2022", "--noEmit")


@pytest.fixture(scope="module")
def typed_project(project: Path, compiler: Path) -> Path:
    """With Node's own types beside the package."""
    types = project / "node_modules" / "@types"
    types.symlink_to(compiler / "node_modules" / "@types")
    (project / "node_modules" / "undici-types").symlink_to(compiler / "node_modules" / "undici-types")
    return project


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


async def test_the_compiled_files_are_those_of_the_source(compiler: Path, tmp_path: Path) -> None:
    await compile_with(compiler, "--project", str(SDK), "--outDir", str(tmp_path), folder=SDK)
    assert contents(SDK / "dist") == contents(tmp_path), "run `npm run build` in sdk/typescript"


def test_the_package_has_the_compiled_files_and_needs_no_other(project: Path) -> None:
    package = project / "node_modules" / NAME
    assert {path.name for path in package.iterdir()} == {"README.md", "dist", "package.json"}
    assert contents(package / "dist") == contents(SDK / "dist")
    described = json.loads((package / "package.json").read_text())
    assert not described.keys() & {"dependencies", "peerDependencies", "optionalDependencies"}
    assert described["engines"] == {"node": ">=18"}


def test_the_lock_names_no_registry() -> None:
    assert "resolved" not in (SDK / "package-lock.json").read_text()


async def test_the_example_runs_as_it_is_printed(typed_project: Path, compiler: Path, stand_in: StandIn) -> None:
    printed = typed_project / "example.mts"
    printed.write_text(example(NAME, f"{stand_in.address}/whole/0"))
    await compile_with(compiler, *STRICT, "--types", "node", printed.name, "types.ts", folder=typed_project)
    code, out, err = await node(printed.name, folder=typed_project, environment={"CLOUD_CODE_KEY": "a-key"})
    assert (code, out) == (0, "".join(f"{content}\n" for content in CONTENTS)), err
    (session,) = [
        seen
        for seen in stand_in.sessions.values()
        if seen.body.get("prompt") == "Refactor this function" and seen.headers.get("Authorization") == "Bearer a-key"
    ]
    assert session.body["repository"] == {"name": "owner/repo"}


async def test_the_types_need_only_what_browsers_have(typed_project: Path, compiler: Path) -> None:
    await compile_with(compiler, *STRICT, "--types", "", "--lib", "es2022,dom", "types.ts", folder=typed_project)
