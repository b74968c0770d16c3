"""`make fuzz`: the fuzz of tool inputs and the model of edits, with new examples until the time is over."""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable

from hypothesis import HealthCheck, given, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.edits import EditMachine
from tests.fuzz.tool_calls import Scene, play, scenes

MAX_MEMORY_MB = 512
_ROUND_EXAMPLES = 200
_STEPS = 40
_LARGEST_SEED = 999_999_999
_LOOSE = settings(
    max_examples=_ROUND_EXAMPLES,
    stateful_step_count=_STEPS,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def main() -> int:
    """Exit code 0 only if nothing was found; what was found is printed with the seed that finds it again."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long to go on (a round that began is ended)")
    parser.add_argument("--seed", type=int, help="of an earlier run, for the same examples; default: drawn")
    asked = parser.parse_args()
    first = random.randint(1, _LARGEST_SEED) if asked.seed is None else asked.seed
    deadline = time.monotonic() + asked.minutes * 60
    rounds = 0
    while rounds == 0 or time.monotonic() < deadline:
        if not _round(first + rounds):
            return 1
        rounds += 1
    return 0


def _round(number: int) -> bool:
    """One round of every target with the seed ``number``."""
    for name, target in _TARGETS.items():
        began = time.monotonic()
        try:
            target(number)
            _check_memory()
        except Exception:  # noqa: BLE001 - whatever it is, it is the finding
            traceback.print_exc()
            _say(f"{name}: FOUND SOMETHING. Again with: make fuzz FUZZ='--minutes 0 --seed {number}'")
            return False
        _say(f"seed {number}: {_ROUND_EXAMPLES} examples of {name} held, {time.monotonic() - began:.1f} s")
    return True


def _tool_inputs(number: int) -> None:
    with asyncio.Runner() as runner:

        @seed(number)
        @_LOOSE
        @given(scenes)
        def fuzz(scene: Scene) -> None:
            runner.run(play(scene))

        fuzz()


def _edits(number: int) -> None:
    run_state_machine_as_test(seed(number)(EditMachine), settings=_LOOSE)


_TARGETS: dict[str, Callable[[int], None]] = {"tool inputs": _tool_inputs, "edits": _edits}


def _check_memory() -> None:
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert peak_mb < MAX_MEMORY_MB, f"the process took {peak_mb:.0f} MB: some call's memory is not bounded"


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)  # noqa: T201  progress for whoever waits


if __name__ == "__main__":
    sys.exit(main())
