"""`python -m quarterdeck.stack`: a stack in the foreground; what `quarterdeck up --detach` starts."""

import argparse
import asyncio
import sys
from pathlib import Path

from quarterdeck.stack.errors import StackError
from quarterdeck.stack.foreground import run_foreground
from quarterdeck.stack.info import StackInfo
from quarterdeck.stack.options import StackOptions, default_data_dir


def read_options(words: list[str]) -> StackOptions:
    """The options of a command line; what it leaves out comes from the environment."""
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.stack", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    parser.add_argument("--agents", type=int, default=StackOptions.agents)
    parser.add_argument("--agent-capacity", type=int, default=StackOptions.agent_capacity)
    parser.add_argument("--host", default=StackOptions.host)
    parser.add_argument("--port", type=int)
    parser.add_argument("--grpc-port", type=int)
    parser.add_argument("--no-local-repositories", dest="allow_local_repositories", action="store_false")
    return StackOptions(**vars(parser.parse_args(words)))


def main() -> int:
    """Exit code: 0 stopped as told, 1 did not start, 2 wrong options."""
    try:
        asyncio.run(run_foreground(read_options(sys.argv[1:]), on_ready=_say_ready, on_notice=_say, on_progress=_say))
    except StackError as error:
        _say(error)
        return 1
    return 0


def _say_ready(info: StackInfo) -> None:
    _say(f"Quarterdeck {info.version} is up at {info.address}")


def _say(what: object) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
