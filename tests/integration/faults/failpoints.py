"""`python -m tests.integration.faults.failpoints MODULE KEYWORD…`: runs a service again and again, and kills it from
within (`os._exit`) at one failpoint after the other; the last life has none. The service's own code is not touched.

A failpoint is `<moment>:<call>:<which one of that call>`, as in `after:transaction:3`. Each life is a fork of this
process, which has imported the service before: starting one takes milliseconds.
"""

from __future__ import annotations

import functools
import importlib
import os
import runpy
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from services.runtime.jetstream import Bus
from services.runtime.nats_client import Client
from services.runtime.postgres import Connection, Database

CALLS: dict[str, tuple[type, str]] = {
    "transaction": (Database, "in_transaction"),
    "statement": (Database, "in_statement"),
    "publish_in_order": (Bus, "publish_in_order"),
    "publish_all": (Bus, "publish_all"),
    "ring": (Bus, "ring"),
    "tell": (Bus, "tell"),
    "send": (Client, "publish"),
    "send_many": (Client, "publish_many"),
}
"""`transaction` has a third moment, `within`: all its statements are done and it is not committed."""
EXIT_FAILPOINT = 86
DIED = "died at"
LAST_LIFE = "last life begins"


class Failpoint:
    def __init__(self, text: str) -> None:
        self.text = text
        self.moment, self.call, number = text.split(":")
        self._number = int(number)
        self._seen: Counter[str] = Counter()

    def arm(self) -> None:
        """Have this process die there."""
        owner, name = CALLS[self.call]
        setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(original)
        async def call(*arguments: Any, **keywords: Any) -> Any:
            is_it = self._is_next()
            if is_it and self.moment == "within":
                owner, work = arguments
                arguments = (owner, functools.partial(_die_after, work))
            if is_it and self.moment == "before":
                os._exit(EXIT_FAILPOINT)
            result = await original(*arguments, **keywords)
            if is_it:
                os._exit(EXIT_FAILPOINT)
            return result

        return call

    def _is_next(self) -> bool:
        self._seen[self.call] += 1
        return self._seen[self.call] == self._number


async def _die_after(work: Callable[[Connection], Awaitable[object]], connection: Connection) -> None:
    await work(connection)
    os._exit(EXIT_FAILPOINT)


def run_lives(module: str, failpoints: Sequence[str]) -> int:
    """Run one life after the other; return how the last one ended. SIGTERM ends the one that runs, and all of it."""
    importlib.import_module(module)
    for text in failpoints:
        code = _live(module, Failpoint(text))
        if code != EXIT_FAILPOINT:
            _say(f"ended with {code} before {text}")
            return code
        _say(f"{DIED} {text}")
    _say(LAST_LIFE)
    return _live(module, None)


def _say(line: str) -> None:
    """To the log, at once: nothing may be left in a buffer that the next fork would copy."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _live(module: str, failpoint: Failpoint | None) -> int:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if failpoint is not None:
            failpoint.arm()
        sys.argv = [module]
        # The module's parts are imported; only its `__main__` guard has to be gone through.
        runpy.run_module(module, run_name="__main__")
        os._exit(0)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    # `-m` gave this module the name `__main__`; what it patches is the services', and there is but one of these.
    sys.exit(run_lives(sys.argv[1], sys.argv[2:]))
