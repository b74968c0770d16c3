"""What is hidden of an MCP server's secrets, and whose import costs nothing until one is there."""

import subprocess
import sys

from services.agent.mcp.redacting import Redaction


def test_secrets_are_hidden_with_or_without_their_scheme_and_short_words_stay() -> None:
    hide = Redaction(["Bearer abc-12345678", "debug", "abc-12345678-longer"])
    assert hide("Bearer abc-12345678, abc-12345678; abc-12345678-longer debug") == "[hidden], [hidden]; [hidden] debug"


def test_the_sdk_is_imported_only_for_runs_with_servers() -> None:
    program = "import sys, services.agent.mcp; sys.exit('mcp' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
