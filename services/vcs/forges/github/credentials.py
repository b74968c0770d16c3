"""What Git shows to GitHub: the token of the API, or the one of the App's installation for the repository's owner; and
of a job that brought a token of its own, this one and no other.
"""

from urllib.parse import urlsplit

from services.vcs.errors import ForgeNotFoundError
from services.vcs.forges.github.access import Accesses
from services.vcs.forges.github.config import GitHubConfig
from services.vcs.git.credentials import TOKEN_USERNAME, Credential, Credentials
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
        if not self._config.is_here(repository) or not _is_reached_as_it_is(self._config, repository):
            return None
        try:
            access = await self._accesses.of(self._config.slug_of(repository))
            return Credential(TOKEN_USERNAME, await access.token())
        except ForgeNotFoundError:
            return None


class JobCredentials:
    """Of one job: its token for this GitHub, where nothing else is shown; ``others`` for every other host."""

    def __init__(self, config: GitHubConfig, others: Credentials) -> None:
        """``config``: with the job's token."""
        self._config = config
        self._others = others

    async def of(self, repository: Repository) -> Credential | None:
        if not self._config.is_here(repository):
            return await self._others.of(repository)
        if not _is_reached_as_it_is(self._config, repository):
            return None
        return Credential(TOKEN_USERNAME, self._config.token)


def _is_reached_as_it_is(config: GitHubConfig, repository: Repository) -> bool:
    return repository.url.startswith(f"{urlsplit(config.server_url).scheme}://")
