"""Runs commands that nobody vouches for: confined, limited, and gone with everything they started when they end."""

from services.agent.sandbox.errors import SandboxUnavailableError
from services.agent.sandbox.limits import Limits
from services.agent.sandbox.process import Process
from services.agent.sandbox.sandbox import Ended, Sandbox

__all__ = ["Ended", "Limits", "Process", "Sandbox", "SandboxUnavailableError"]
