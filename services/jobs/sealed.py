"""Whose sealed secrets are whose, and what they are called inside."""

from __future__ import annotations

from uuid import UUID

CLIENT_KEY = "anthropicApiKey"
GITHUB_TOKEN = "githubToken"  # noqa: S105  the name of it
MCP_SERVERS = "mcpServers"
"""Server → variable or header → value."""


def job_owner(job_id: UUID) -> str:
    return f"job {job_id}"


def client_owner(client_id: UUID) -> str:
    return f"client {client_id}"


def app_owner(app_id: int) -> str:
    return f"forge app {app_id}"


def webhook_owner(app_id: int) -> str:
    """Of the secret that gateways know, who are not to know the App's others."""
    return f"webhook of forge app {app_id}"
