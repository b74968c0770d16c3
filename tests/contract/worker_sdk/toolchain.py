"""Node and the locked TypeScript, and the package as a user gets it from the registry."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Final

from tests.integration.npm import NODE, npm

SDK: Final = Path(__file__).parents[3] / "sdk" / "typescript"
NAME: Final = "@quarterdeck/worker-sdk"
SECONDS: Final = 100


def install_package(folder: Path) -> None:
    """Into ``folder``/node_modules, just the files that would be published."""
    packed = npm("pack", "--ignore-scripts", "--pack-destination", str(folder), str(SDK), folder=folder).split()[-1]
    target = folder / "node_modules" / NAME
    target.mkdir(parents=True)
    subprocess.run(["tar", "-xzf", folder / packed, "-C", target, "--strip-components=1"], check=True, timeout=SECONDS)


async def node(*arguments: str, folder: Path, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Its exit code, and what it wrote to stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(str(NODE), *arguments),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "no_proxy": "*", **(environment or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def compile_with(compiler: Path, *arguments: str, folder: Path) -> None:
    """Run `tsc`, and fail with its complaints."""
    script = compiler / "node_modules" / "typescript" / "bin" / "tsc"
    code, out, err = await node(str(script), *arguments, folder=folder)
    assert code == 0, out + err
