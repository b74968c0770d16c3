"""Which dialects this process serves, as its environment has it. The log says which, and why not the others."""

from __future__ import annotations

from services.gateway.dialects.codebot import codebot
from services.gateway.dialects.codebot.settings import PORT_VARIABLE, CodebotSettings
from services.gateway.dialects.dialect import Dialect
from services.runtime.settings import load
from services.runtime.telemetry import logger

log = logger("gateway.dialects")


def chosen() -> list[Dialect]:
    """Read the settings; a wrong one is named and ends the process with 2."""
    return [dialect for dialect in (_codebot(load(CodebotSettings)),) if dialect is not None]


def _codebot(settings: CodebotSettings) -> Dialect | None:
    dialect = codebot(settings)
    if dialect is None:
        tell = log.info if settings.port is None else log.warning
        tell("not served: it needs API keys", dialect="codebot", set="CODEBOT_API_KEYS", port=settings.port)
    else:
        log.info(
            "served", dialect=dialect.name, api_keys=len(settings.keys), variable=PORT_VARIABLE, port=settings.port
        )
    return dialect
