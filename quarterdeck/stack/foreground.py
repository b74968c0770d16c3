"""Runs a stack until a signal ends it. One is an orderly stop; a second ends everything at once."""

import asyncio
from collections.abc import Callable
from signal import Signals

from quarterdeck.stack.info import StackInfo
from quarterdeck.stack.local import LocalStack
from quarterdeck.stack.options import StackOptions
from quarterdeck.stack.supervisor import Notice

SIGNALS = (Signals.SIGINT, Signals.SIGTERM, Signals.SIGHUP)


async def run_foreground(
    options: StackOptions,
    *,
    on_ready: Callable[[StackInfo], None],
    on_notice: Callable[[Notice], None],
    on_progress: Callable[[str], None],
) -> None:
    """Start, call ``on_ready``, run until SIGINT, SIGTERM or SIGHUP, stop. Raises what ``LocalStack.start`` does.

    For the main thread of a program that does nothing else.
    """
    stack = LocalStack(options, on_notice=on_notice, on_progress=on_progress)
    stop = asyncio.Event()
    urgent: list[asyncio.Task[None]] = []

    def on_signal() -> None:
        if stop.is_set():
            urgent.append(asyncio.create_task(stack.stop(at_once=True)))
        else:
            on_progress("stopping; once more to stop at once")
            stop.set()

    loop = asyncio.get_running_loop()
    for signal in SIGNALS:
        loop.add_signal_handler(signal, on_signal)
    try:
        if await _started(stack, stop):
            on_ready(stack.info)
            await stack.run_until_stopped(stop)
    finally:
        await asyncio.gather(*urgent)
        for signal in SIGNALS:
            loop.remove_signal_handler(signal)


async def _started(stack: LocalStack, stop: asyncio.Event) -> bool:
    """Whether it came up before it was told to stop; where not, all that was started has been stopped."""
    starting = asyncio.create_task(stack.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
    await asyncio.wait({starting})
    if starting.cancelled():
        return False
    starting.result()
    return True
