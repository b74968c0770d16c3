"""What GitHub tells of an App's installations, kept. What a payload does not say is left out; nothing is raised."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from services.gateway.webhooks.payloads import Payload, identifier, mapping, mappings, moment, text
from services.jobs.forge_apps import ForgeApps

_ALL: Final = "all"
Keep = Callable[[ForgeApps], Awaitable[None]]


def installation_change(event: str, payload: Payload) -> Keep | None:
    """What is to be kept of this event; None: nothing."""
    installation = mapping(payload, "installation")
    number = identifier(installation)
    action = text(payload, "action")
    if not number:
        return None
    match event:
        case "installation":
            return _of_installation(number, action, installation, payload)
        case "installation_repositories" if action in ("added", "removed"):
            added, removed = _names(payload, "repositories_added"), _names(payload, "repositories_removed")
            has_all, at = _has_all(installation), moment(installation, "updated_at")
            return lambda apps: apps.change_repositories(number, added, removed, has_all=has_all, at=at)
        case _:
            return None


def _of_installation(number: int, action: str, installation: Payload, payload: Payload) -> Keep | None:
    at = moment(installation, "updated_at")
    match action:
        case "created":
            return lambda apps: apps.record_installation(
                number,
                app_id=identifier(installation, "app_id"),
                account=text(mapping(installation, "account"), "login"),
                repositories=_names(payload, "repositories"),
                has_all=_has_all(installation),
                at=at,
            )
        case "deleted":
            return lambda apps: apps.remove(number)
        case "suspend":
            return lambda apps: apps.suspend(number, at=at)
        case "unsuspend":
            return lambda apps: apps.unsuspend(number, at=at)
        case _:
            return None


def _has_all(installation: Payload) -> bool:
    return text(installation, "repository_selection") == _ALL


def _names(payload: Payload, name: str) -> list[str]:
    return [full_name for each in mappings(payload, name) if (full_name := text(each, "full_name"))]
