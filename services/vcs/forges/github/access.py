"""As whom GitHub is asked: a token, or the installations of an App with tokens that are renewed before they run out."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from services.vcs.errors import ForgeNotFoundError
from services.vcs.forges.github.answers import Installation, InstallationToken
from services.vcs.forges.github.calls import Calls
from services.vcs.forges.github.config import GitHubConfig, Slug
from services.vcs.forges.github.transport import Access, Transport

RENEW_BEFORE: Final = timedelta(minutes=5)
"""A token with less left than this is not handed out: a push or a fetch may still go on with it for so long."""


class GivenToken:
    """A token that somebody made by hand; there is no other where it is not accepted."""

    key = "token"

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        return self._token

    async def renewed(self, stale: str) -> str | None:  # noqa: ARG002
        return None


class AppKey:
    """The App itself, which may do little more than find its installations and make their tokens."""

    key = "app"

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def token(self) -> str:
        return await self._transport.signed()

    async def renewed(self, stale: str) -> str | None:  # noqa: ARG002
        return None


class InstallationAccess:
    """An App on one account. However many ask at once, one token is made."""

    def __init__(
        self,
        transport: Transport,
        app: AppKey,
        number: int,
        *,
        gone: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``gone``: called where GitHub no longer has the installation."""
        self.number = number
        self.key = f"installation {number}"
        self._transport = transport
        self._calls = Calls(transport, app)
        self._gone = gone
        self._clock = clock
        self._making = asyncio.Lock()
        self._token = ""
        self._good_until = 0.0
        self.expires_at: datetime | None = None
        """Of the token that was handed out last."""

    async def token(self) -> str:
        async with self._making:
            if not self._token or self._clock() >= self._good_until:
                await self._make()
            return self._token

    async def renewed(self, stale: str) -> str | None:
        async with self._making:
            if self._token == stale:
                await self._make()
            return self._token

    async def _make(self) -> None:
        path = ("app", "installations", self.number, "access_tokens")
        try:
            made = await self._calls.send(InstallationToken, "POST", *path, body={})
        except ForgeNotFoundError:
            self._gone()
            raise
        self.expires_at = made.expires_at
        left = made.expires_at - datetime.now(UTC) - RENEW_BEFORE
        self._token, self._good_until = made.token, self._clock() + left.total_seconds()


class Accesses:
    """Who may act where. An App has at most one installation for an owner, which is looked up once."""

    def __init__(self, config: GitHubConfig, transport: Transport) -> None:
        self._given = GivenToken(config.token) if config.token else None
        self._only = config.installation_id
        self._settings = config.credential_settings
        self._transport = transport
        self._app = AppKey(transport)
        self._calls = Calls(transport, self._app)
        self._of_owner: dict[str, InstallationAccess] = {}
        self._by_number: dict[int, InstallationAccess] = {}

    @property
    def is_app(self) -> bool:
        return self._given is None

    async def of(self, slug: Slug) -> Access:
        """Raises ``ForgeNotFoundError`` where the App is not installed for the repository."""
        return self._given or await self.installation_of(slug)

    async def installation_of(self, slug: Slug) -> InstallationAccess:
        if self._only is not None:
            return self._installation(self._only)
        owner = slug.owner.casefold()
        if owner not in self._of_owner:
            self._of_owner[owner] = self._installation(await self._found(slug))
        return self._of_owner[owner]

    async def everywhere(self, owner: str = "") -> list[Access]:
        """Each access whose repositories can be listed; with ``owner``, those for its repositories."""
        if self._given is not None:
            return [self._given]
        if self._only is not None:
            return [self._installation(self._only)]
        found = await self._installations()
        wanted = [
            one for one in found if not owner or (one.account and one.account.login.casefold() == owner.casefold())
        ]
        return [self._installation(one.id) for one in wanted if one.suspended_at is None]

    def _installation(self, number: int) -> InstallationAccess:
        if number not in self._by_number:
            gone = partial(self._forget, number)
            self._by_number[number] = InstallationAccess(self._transport, self._app, number, gone=gone)
        return self._by_number[number]

    async def _found(self, slug: Slug) -> int:
        try:
            return (await self._calls.get(Installation, "repos", slug.owner, slug.name, "installation")).id
        except ForgeNotFoundError as error:
            raise ForgeNotFoundError(
                f"the GitHub App is not installed for {slug} (or {self._settings} are another App's); "
                "install it there, or choose the repository in its installation",
                git_message=error.git_message,
            ) from error

    async def _installations(self) -> list[Installation]:
        return [one async for one in self._calls.pages(Installation, "app", "installations")]

    def _forget(self, number: int) -> None:
        """It was removed, and may have been made anew under another number."""
        self._by_number.pop(number, None)
        self._of_owner = {owner: one for owner, one in self._of_owner.items() if one.number != number}
