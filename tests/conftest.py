"""Of every test: what the machinery around them need not spend."""

from __future__ import annotations

import gc

import pytest
import structlog
from hypothesis import settings

# How long an example takes is the machine's affair: no test is about that.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure() -> None:
    """Collecting makes a million objects that stay: looking for garbage among them takes a third of its time."""
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """From here on as usual, but for what has been collected, which is looked through no more."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _plain_tracebacks() -> None:
    """Unless told otherwise structlog paints each traceback with all that its variables hold: that takes seconds."""
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])
