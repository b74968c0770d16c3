"""Requests about one repository, as one access: paths are put together and quoted here, and pages followed."""

from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote

from services.vcs.errors import ForgeRefusedError, ForgeUnavailableError
from services.vcs.forges.github.answers import GraphqlAnswer
from services.vcs.forges.github.config import Slug
from services.vcs.forges.github.errors import words_of
from services.vcs.forges.github.shapes import Shape, read
from services.vcs.forges.github.transport import Access, Transport

PER_PAGE: Final = 100
MOST_PAGES: Final = 50


class Calls:
    """Anywhere on GitHub. ``parts`` of a path are quoted, slashes in them too."""

    def __init__(self, transport: Transport, access: Access) -> None:
        self._transport = transport
        self._access = access

    async def get(self, shape: type[Shape], *parts: object, **params: str) -> Shape:
        path = self._path(parts)
        answer = await self._transport.call(self._access, "GET", path, params=params or None)
        return read(shape, answer.data, path)

    async def pages(
        self, shape: type[Shape], *parts: object, key: str = "", most_pages: int = MOST_PAGES, **params: str
    ) -> AsyncIterator[Shape]:
        """Every element, page after page. ``key``: the member that holds them, where an answer is no plain list."""
        path = self._path(parts)
        for page in range(1, most_pages + 1):
            numbered = params | {"per_page": str(PER_PAGE), "page": str(page)}
            answer = await self._transport.call(self._access, "GET", path, params=numbered)
            for element in _elements(answer.data, key, path):
                yield read(shape, element, path)
            if answer.is_last:
                return

    async def send(self, shape: type[Shape], method: str, *parts: object, body: Any, creates: bool = False) -> Shape:
        path = self._path(parts)
        answer = await self._transport.call(self._access, method, path, body=body, creates=creates)
        return read(shape, answer.data, path)

    async def do(self, method: str, *parts: object, body: Any = None) -> None:
        """``send``, where the answer says nothing more than that it was done."""
        await self._transport.call(self._access, method, self._path(parts), body=body)

    def _path(self, parts: tuple[object, ...]) -> str:
        return "".join(f"/{quote(str(part), safe='')}" for part in parts)


class RepositoryCalls(Calls):
    """Beneath one repository."""

    def __init__(self, transport: Transport, access: Access, slug: Slug, *, graphql_url: str) -> None:
        super().__init__(transport, access)
        self.slug = slug
        self._graphql_url = graphql_url

    async def graphql(self, query: str, variables: dict[str, Any]) -> None:
        """Raises ``ForgeRefusedError`` where the answer holds errors."""
        body = {"query": query, "variables": variables}
        answer = await self._transport.call(self._access, "POST", self._graphql_url, body=body)
        errors = read(GraphqlAnswer, answer.data, self._graphql_url).errors
        if errors:
            words = words_of({"errors": list(errors)})
            raise ForgeRefusedError("GitHub refuses a GraphQL mutation", git_message=words)

    def _path(self, parts: tuple[object, ...]) -> str:
        return super()._path(("repos", self.slug.owner, self.slug.name, *parts))


def _elements(data: Any, key: str, path: str) -> list[Any]:
    elements = data.get(key) if key and isinstance(data, dict) else data
    if not isinstance(elements, list):
        raise ForgeUnavailableError(f"the answer to {path} is no list; is it GitHub's?")
    return elements
