"""A short run of chaos in every test run; `make chaos` is the long one."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos.plan import FaultKind
from tests.chaos.report import print_report
from tests.chaos.run import Options, run_chaos

pytestmark = [pytest.mark.timeout(300), pytest.mark.alone]
SEED = 137
"""Of a plan that has it all: a zombie agent, a wipe, everything at once, one of the schedulers, and the gateway."""
SHORT = Options(seed=SEED, minutes=0.3, kills=6, jobs=20, origins=4, settle_seconds=120)


async def test_nothing_is_lost_and_nothing_is_done_twice_whatever_dies(tmp_path: Path):
    said: list[str] = []
    outcome = await run_chaos(SHORT, tmp_path, say=said.append)
    with Console(width=140, record=True, file=io.StringIO()) as console:
        print_report(console, outcome)
    assert outcome.passed, console.export_text()
    assert {kind for _, kind in outcome.injected} == set(FaultKind)
    assert sum(bool(each.answers) for each in outcome.submissions) >= SHORT.jobs
