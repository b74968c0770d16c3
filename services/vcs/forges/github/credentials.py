"""What Git shows to GitHub: the token of the API, or the one of the App's installation for the repository's owner."""

from urllib.parse import urlsplit

from services.vcs.errors import ForgeNotFoundError
from services.vcs.forges.github.access import Accesses
from services.vcs.forges.github.config import GitHubConfig
from services.vcs.git.credentials import TOKEN_USERNAME, Credential
from services.vcs.git.repositories import Repository


class GitHubCredentials:
    def __init__(self, config: GitHubConfig, accesses: Accesses) -> None:
        self._config = config
        self._accesses = accesses

    async def of(self, repository: Repository) -> Credential | None:
        """None for what is not on this GitHub, is not reached as it is (a token is not sent over http, nor needed over
        ssh), or where the App is not installed: the repository may be public. Good for 5 minutes at least.

        Raises ``ForgeError``.
        """
        scheme = urlsplit(self._config.server_url).scheme
        if not repository.url.startswith(f"{scheme}://") or not self._config.is_here(repository):
            return None
        try:
            access = await self._accesses.of(self._config.slug_of(repository))
            return Credential(TOKEN_USERNAME, await access.token())
        except ForgeNotFoundError:
            return None
