"""The embedded local stack: real servers and services as processes on one data folder. No service imports it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quarterdeck.stack.detached import ProcessStatus, StackStatus, read_status, start_detached, stop_detached
    from quarterdeck.stack.embedded import EmbeddedServers
    from quarterdeck.stack.errors import StackError, StackLockedError, StackNotRunningError, StackStartError
    from quarterdeck.stack.foreground import run_foreground
    from quarterdeck.stack.info import StackInfo, read_info
    from quarterdeck.stack.local import LocalStack
    from quarterdeck.stack.options import DataFolder, StackOptions, default_data_dir
    from quarterdeck.stack.supervisor import Notice

__all__ = [
    "DataFolder",
    "EmbeddedServers",
    "LocalStack",
    "Notice",
    "ProcessStatus",
    "StackError",
    "StackInfo",
    "StackLockedError",
    "StackNotRunningError",
    "StackOptions",
    "StackStartError",
    "StackStatus",
    "default_data_dir",
    "read_info",
    "read_status",
    "run_foreground",
    "start_detached",
    "stop_detached",
]

_MODULES = {
    "DataFolder": "options",
    "EmbeddedServers": "embedded",
    "LocalStack": "local",
    "Notice": "supervisor",
    "ProcessStatus": "detached",
    "StackInfo": "info",
    "StackOptions": "options",
    "StackStatus": "detached",
    "default_data_dir": "options",
    "read_info": "info",
    "read_status": "detached",
    "run_foreground": "foreground",
    "start_detached": "detached",
    "stop_detached": "detached",
}


def __getattr__(name: str) -> object:
    """Load lazily: reading ``stack.json`` must not cost the import of database drivers."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
