"""Tools of MCP servers for a run. Alone here `mcp` is imported, and only when a run has servers."""

from services.agent.mcp.connecting import McpTools, connected

__all__ = ["McpTools", "connected"]
