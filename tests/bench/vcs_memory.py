"""The most memory that a process and the programs it starts take, as Linux counts it. Starts nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_EVERY_SECONDS = 0.05
_PROC = Path("/proc")
_KB = 1024
_MB = 1_000_000


@dataclass
class ProgramsPeak:
    """Megabytes: of the largest program that was seen, and of all that were seen at once."""

    largest: float = 0.0
    together: float = 0.0


def resident_mb(pid: int) -> float:
    return _megabytes(pid, "VmRSS")


def peak_mb(pid: int) -> float:
    """The most that was ever resident: the kernel's own count, so that nothing is missed."""
    return _megabytes(pid, "VmHWM")


@asynccontextmanager
async def programs_peak(pid: int) -> AsyncIterator[ProgramsPeak]:
    """Looks at what ``pid`` has started, and what that has, every 50 ms; one that is over sooner may be missed."""
    peak = ProgramsPeak()
    looking = asyncio.create_task(_look(pid, peak))
    try:
        yield peak
    finally:
        looking.cancel()
        await asyncio.wait([looking])


async def _look(pid: int, peak: ProgramsPeak) -> None:
    while True:
        programs = _descendants(pid)
        peak.largest = max(peak.largest, *(peak_mb(program) for program in programs), 0.0)
        peak.together = max(peak.together, sum(resident_mb(program) for program in programs))
        await asyncio.sleep(_EVERY_SECONDS)


def _descendants(pid: int) -> list[int]:
    """Read thread by thread, which is far cheaper than to look at every process of the machine."""
    found: list[int] = []
    for children in _PROC.glob(f"{pid}/task/*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, children.read_text().split())
    return found + [below for child in found for below in _descendants(child)]


def _megabytes(pid: int, field: str) -> float:
    """0 for a process that is gone."""
    try:
        status = (_PROC / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        if not _PROC.is_dir():
            raise RuntimeError("how much memory a process took is read from /proc, which only Linux has") from None
        return 0.0
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * _KB / _MB if found else 0.0
