"""The accounts of the embedded nats-server: one for the services, and one whose users may read the events alone.

Permissions within one account would not do: whoever may ask JetStream anything also says where the answer goes, and an
empty answer sent to `$JS.API.STREAM.DELETE.WORK` deletes that stream. Between accounts, answers go home alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SERVICES = "QUARTERDECK"
SUBSCRIBERS = "SUBSCRIBERS"
SUBSCRIBER = "subscriber"
"""The user. Others of the account would share its rights, and could read its replies but for the prefix."""
DOMAIN = "quarterdeck"
"""The JetStream domain that subscribers give: the name under which their account sees the services' JetStream."""
INBOX_PREFIX = f"_INBOX_{SUBSCRIBER}"
EVENTS = "qd.evt.>"

# No list of consumers: it would give away the names of the gateway's, and a name is all that it takes to delete one.
_API = (
    "INFO",
    "STREAM.INFO.EVENTS",
    "CONSUMER.CREATE.EVENTS.>",
    "CONSUMER.DURABLE.CREATE.EVENTS.*",
    "CONSUMER.INFO.EVENTS.*",
    "CONSUMER.DELETE.EVENTS.*",
)
_NEXT = "CONSUMER.MSG.NEXT.EVENTS.*"
_ACK = "$JS.ACK.EVENTS.>"


def accounts(*, user: str, password: str, subscriber_password: str) -> dict[str, Any]:
    """The server's `accounts`. ``user``: the services', who may do anything in their account."""
    return {
        SERVICES: {
            "jetstream": "enabled",
            "users": [{"user": user, "password": password}],
            "exports": _exports(),
        },
        SUBSCRIBERS: {
            "users": [{"user": SUBSCRIBER, "password": subscriber_password, "permissions": _permissions()}],
            "imports": _imports(),
        },
    }


def _exports() -> list[dict[str, Any]]:
    services = [*(f"$JS.API.{each}" for each in _API), _ACK]
    return [
        {"stream": EVENTS, "accounts": [SUBSCRIBERS]},
        *({"service": each, "accounts": [SUBSCRIBERS]} for each in services),
        {"service": f"$JS.API.{_NEXT}", "response": "stream", "accounts": [SUBSCRIBERS]},
    ]


def _imports() -> list[dict[str, Any]]:
    api = [
        {"service": {"account": SERVICES, "subject": f"$JS.API.{each}"}, "to": f"$JS.{DOMAIN}.API.{each}"}
        for each in (*_API, _NEXT)
    ]
    return [
        {"stream": {"account": SERVICES, "subject": EVENTS}},
        {"service": {"account": SERVICES, "subject": _ACK}},
        *api,
    ]


def _permissions() -> dict[str, list[str]]:
    return {
        "publish": [*(f"$JS.{DOMAIN}.API.{each}" for each in (*_API, _NEXT)), _ACK],
        "subscribe": [EVENTS, f"{INBOX_PREFIX}.>"],
    }


def move_store(store: Path) -> None:
    """Take over what a server without accounts, as stacks had it before, has stored in ``store``."""
    old, new = store / "jetstream" / "$G", store / "jetstream" / SERVICES
    if old.is_dir() and not new.exists():
        old.rename(new)
