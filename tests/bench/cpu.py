"""How much processor time each process has used, so that a rate also tells what to make cheaper."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import psutil


def cpu_seconds(pid: int) -> float:
    """User and system time of the process ``pid`` and its children, those that are gone included."""
    root = psutil.Process(pid)
    own = root.cpu_times()
    seconds = own.user + own.system + own.children_user + own.children_system
    for child in root.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # its time is among the gone ones' next time
            times = child.cpu_times()
            seconds += times.user + times.system
    return seconds


class CpuMeter:
    """Counts from when it is made."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        """``processes``: pids by name."""
        self._processes = processes
        self._before = {name: cpu_seconds(pid) for name, pid in processes.items()}

    def used(self) -> dict[str, float]:
        """Seconds by name."""
        return {name: cpu_seconds(pid) - self._before[name] for name, pid in self._processes.items()}
