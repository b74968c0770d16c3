"""The models of clients (tenants) and their API keys."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import Field

from services.contracts.model import Model, Name, Request
from services.contracts.rest import Page


class ClientRequest(Request):
    name: Name
    is_operator: bool = Field(default=False, description="may change what concerns everybody")


class Client(Model):
    """A tenant: whose jobs, changesets, repositories and settings these are."""

    id: UUID
    name: str
    is_operator: bool
    created_at: datetime
    disabled_at: datetime | None = Field(description="its keys open nothing from then on; null: they do")


class ClientWithKey(Client):
    api_key: str = Field(description="shown in this answer alone: what is stored cannot be read back")


class ClientPage(Page):
    items: list[Client]
