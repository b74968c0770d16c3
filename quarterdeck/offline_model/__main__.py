"""`python -m quarterdeck.offline_model`: starts the server, prints its address as one JSON line, stops on a signal."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta

import uvloop
from aiohttp import web

from quarterdeck.offline_model.server import OfflineModel

ENVIRONMENT_PREFIX = "QUARTERDECK_OFFLINE_"
LARGEST_PORT = 65_535
LONGEST_DELAY_MS = 60_000
CLEANUP_SECONDS = 0.1
"""How long open streams may go on after a signal; the whole stop takes less than a second."""
EXIT_WRONG_CONFIGURATION = 2


def main() -> None:
    options = _parser().parse_args()
    logging.basicConfig(level=options.log_level, stream=sys.stderr)
    try:
        uvloop.run(_serve(options))
    except OSError as error:
        print(f"cannot listen on {options.host}:{options.port}: {error}; choose --port 0", file=sys.stderr)
        sys.exit(EXIT_WRONG_CONFIGURATION)


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    model = OfflineModel(
        turn_delay=timedelta(milliseconds=options.turn_delay_ms),
        delta_delay=timedelta(milliseconds=options.delta_delay_ms),
    )
    runner = web.AppRunner(model.application(), access_log=None, shutdown_timeout=CLEANUP_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port).start()
        host, port = runner.addresses[0][:2]
        print(json.dumps({"address": f"http://{f'[{host}]' if ':' in host else host}:{port}"}), flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quarterdeck.offline_model",
        description="A stand-in for Claude that works offline and carries out literal replacements only.",
        epilog=f"Each option can also be set in the environment, as {ENVIRONMENT_PREFIX}PORT for --port.",
    )
    _add(parser, "host", "127.0.0.1", str, "address to listen on")
    _add(parser, "port", "0", _whole_number("port", LARGEST_PORT), "0: a free one")
    _add(
        parser,
        "delta-delay-ms",
        "0",
        _whole_number("delta-delay-ms", LONGEST_DELAY_MS),
        "pause between the fragments of a stream",
    )
    _add(
        parser,
        "turn-delay-ms",
        "0",
        _whole_number("turn-delay-ms", LONGEST_DELAY_MS),
        "pause before each reply",
    )
    _add(parser, "log-level", "WARNING", _log_level, "DEBUG shows each request")
    return parser


def _add(parser: argparse.ArgumentParser, name: str, default: str, read: Callable[[str], object], purpose: str) -> None:
    value = os.environ.get(_variable(name), default)
    parser.add_argument(f"--{name}", type=read, default=value, help=f"{purpose} (default: {default})")


def _whole_number(name: str, largest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or int(text) > largest:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from 0 to {largest}, not {text!r} (see also {_variable(name)})"
            )
        return int(text)

    return read


def _log_level(text: str) -> str:
    if text.upper() not in logging.getLevelNamesMapping():
        raise argparse.ArgumentTypeError(f"must be DEBUG, INFO, WARNING or ERROR, not {text!r}")
    return text.upper()


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper().replace("-", "_")


if __name__ == "__main__":
    main()
