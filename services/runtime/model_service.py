"""What both who takes jobs and who does them are told of the model service's address."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from services.runtime.base_urls import VARIABLE as MODEL_BASE_URLS
from services.runtime.base_urls import BaseUrls
from services.runtime.settings import SealingSettings


def _refuse_bad_address(address: str) -> str:
    BaseUrls(address)
    return address


def _refuse_bad_list(addresses: str) -> str:
    BaseUrls(listed=addresses)
    return addresses


class ModelServiceSettings(SealingSettings):
    anthropic_base_url: Annotated[
        Annotated[str, AfterValidator(_refuse_bad_address)] | None, Field(validation_alias="ANTHROPIC_BASE_URL")
    ] = None
    """The server's own; none: the provider's."""
    model_base_urls: Annotated[
        Annotated[str, AfterValidator(_refuse_bad_list)] | None, Field(validation_alias=MODEL_BASE_URLS)
    ] = None
    """What clients and jobs may name besides, split by commas."""

    @property
    def base_urls(self) -> BaseUrls:
        return BaseUrls(self.anthropic_base_url, self.model_base_urls)
