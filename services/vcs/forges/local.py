"""The forge that needs no account: a pushed branch, and the changeset's own page on the gateway."""

from urllib.parse import quote

from services.vcs.forges import PublishedChange


class LocalForge:
    def __init__(self, address: str) -> None:
        """``address``: where the gateway's pages are, such as http://127.0.0.1:8080."""
        self._address = address.rstrip("/")

    async def open(self, change: PublishedChange) -> str:
        """The page is there as soon as the changeset is, so there is nothing to make and nothing to make twice."""
        return f"{self._address}/changesets/{quote(change.changeset_id, safe='')}"
