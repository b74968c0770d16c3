"""Who may use a published API that knows no keys: people on this machine; elsewhere only where a setting says so."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web
from pydantic import SecretStr

from services.gateway.dialects.dialect import Admit
from services.gateway.dialects.keys import SECURITY, ApiKeys
from services.gateway.problems import ProblemError
from services.runtime.settings import refuse
from services.runtime.telemetry import logger

log = logger("gateway.dialects")

_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Admission:
    """Who is let in, and how OpenAPI describes that; nothing is needed where there is no ``security``.

    ``admit_browser``: the same for what people look at, who give a key as the password.
    """

    admit: Admit
    admit_browser: Admit
    security: Mapping[str, Mapping[str, str]]


def admission(host: str, *, realm: str, key: SecretStr | None, is_open: bool) -> Admission | None:
    """None: it must not be served. ``key``: what requests must bear. ``is_open``: no authentication is wanted.

    On this machine's own addresses neither is needed. ``host``: where the API listens.
    """
    if key is not None and key.get_secret_value():
        keys = ApiKeys([key.get_secret_value()], realm=realm)
        return Admission(keys.admit, keys.admit_browser, SECURITY)
    if is_open:
        return Admission(_admit_all, _admit_all, {})
    return Admission(admit_local_names, admit_local_names, {}) if is_loopback(host) else None


def tell_not_served(
    dialect: str, host: str, *, port: int | None, port_variable: str, key_variable: str, open_variable: str
) -> None:
    """Where ``admission`` is None: a line in the log; where ``port`` was asked for, the process ends with 2."""
    if port is not None:
        reason = f"the API has no authentication of its own, and {host} is reached from elsewhere"
        refuse(port_variable, f"{reason}: set {key_variable} to a key, or {open_variable}=true where all may use it")
    log.info("not served: it needs an API key here", dialect=dialect, set=key_variable, or_set=open_variable, host=host)


def _admit_all(_: web.Request) -> None:
    """Whoever reaches it may use it."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def admit_local_names(request: web.Request) -> None:
    """Refuse what came by another name than this machine's own: a web page whose name leads here is not its user.

    Raises ``ProblemError``: 403.
    """
    if request.url.host not in _LOCAL_NAMES and not is_loopback(request.url.host or ""):
        raise ProblemError(403, f"this API is for this machine alone: use one of {', '.join(_LOCAL_NAMES)} as its host")
