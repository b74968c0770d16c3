"""Turns what GitHub answered into the shapes that are read of it."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from services.vcs.errors import ForgeUnavailableError

Shape = TypeVar("Shape", bound=BaseModel)


def read(shape: type[Shape], data: Any, asked: str) -> Shape:
    """Raises ``ForgeUnavailableError`` where the answer is another: some proxy's, or a server's that is half up."""
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        # Not chained: it quotes the answer, which may be a token.
        missing = ", ".join(str(one["loc"][-1]) for one in error.errors(include_input=False) if one["loc"])
        raise ForgeUnavailableError(f"the answer to {asked} is not as GitHub's are: {missing or 'all of it'}") from None
