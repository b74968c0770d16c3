"""What people look at in a browser beside a published API: the local forge's pages of changesets."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from services.gateway.dialects.dialect import Admit
from services.gateway.tracing import Handler
from services.gateway.web.changeset import PATH, changeset_page


def changeset_pages(admit: Admit) -> Mapping[str, Handler]:
    """For ``Dialect.pages``. ``admit``: refuses browsers that may not look."""

    async def page(request: web.Request) -> web.StreamResponse:
        admit(request)
        return await changeset_page(request)

    return {PATH: page}
