"""Which gateway to talk to: what the caller says, else the environment, else the running local stack."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from quarterdeck.errors import NotConfiguredError
from quarterdeck.stack import DataFolder, StackInfo, default_data_dir, read_info

ADDRESS_VARIABLE = "QUARTERDECK_ADDRESS"
API_KEY_VARIABLE = "QUARTERDECK_API_KEY"


@dataclass(frozen=True)
class Endpoint:
    """``address``: a URL without a path's last slash. ``api_key``: None where nobody gave one."""

    address: str
    api_key: str | None = field(repr=False)


def resolve(address: str | None, api_key: str | None, *, data_dir: Path | None = None) -> Endpoint:
    """The gateway to talk to; ``data_dir`` asks for the local stack there, whatever the environment says.

    The local stack's key goes to the local stack alone, never to an address that somebody named.
    Raises NotConfiguredError where no gateway is known or the address is no HTTP URL.
    """
    environment = os.environ if data_dir is None else {}
    told = address or environment.get(ADDRESS_VARIABLE)
    key = api_key or environment.get(API_KEY_VARIABLE)
    folder = data_dir or default_data_dir()
    stack = read_info(DataFolder(folder).info)
    if told:
        return Endpoint(_checked(told), key or _key_of(stack, told))
    if stack is None:
        raise NotConfiguredError(
            f"No local stack runs on {folder}: start one with `quarterdeck up`, or set {ADDRESS_VARIABLE} "
            f"and {API_KEY_VARIABLE} to a gateway elsewhere."
        )
    return Endpoint(stack.address, key or stack.api_key)


def _key_of(stack: StackInfo | None, address: str) -> str | None:
    return stack.api_key if stack is not None and stack.address == address.rstrip("/") else None


def _checked(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise NotConfiguredError(
            f"{address!r} is no address of a gateway: it must be a URL such as http://127.0.0.1:8080."
        )
    return address.rstrip("/")
