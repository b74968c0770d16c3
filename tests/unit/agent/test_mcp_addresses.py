"""Which addresses an MCP server over HTTP may have, and whose import costs nothing until one is there."""

import ipaddress
import subprocess
import sys

import pytest

from services.agent.mcp.addresses import is_public
from services.agent.mcp.redacting import Redaction

PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "224.0.1.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001:db8::1",
    "fc00::1",
    "fe80::1",
    "fe80::1%1",
    "ff0e::1",
]


@pytest.mark.parametrize("text", PRIVATE)
def test_addresses_that_are_not_the_internets(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_of_the_internet(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


def test_secrets_are_hidden_with_or_without_their_scheme_and_short_words_stay() -> None:
    hide = Redaction(["Bearer abc-12345678", "debug", "abc-12345678-longer"])
    assert hide("Bearer abc-12345678, abc-12345678; abc-12345678-longer debug") == "[hidden], [hidden]; [hidden] debug"


def test_the_sdk_is_imported_only_for_runs_with_servers() -> None:
    program = "import sys, services.agent.mcp; sys.exit('mcp' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
