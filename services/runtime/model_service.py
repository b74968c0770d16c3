"""What both who takes jobs and who does them are told of the model service's address, and of the key to secrets."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from services.runtime.base_urls import VARIABLE as MODEL_BASE_URLS
from services.runtime.base_urls import BaseUrls
from services.runtime.sealing import Sealer
from services.runtime.settings import ServiceSettings


def _refuse_bad_keys(keys: SecretStr) -> SecretStr:
    Sealer(keys.get_secret_value())
    return keys


def _refuse_bad_address(address: str) -> str:
    BaseUrls(address)
    return address


def _refuse_bad_list(addresses: str) -> str:
    BaseUrls(listed=addresses)
    return addresses


class ModelServiceSettings(ServiceSettings):
    secret_key: Annotated[SecretStr, AfterValidator(_refuse_bad_keys)] | None = None
    """Seals and opens secrets, as ``Sealer`` takes it; none: storing one is refused."""
    anthropic_base_url: Annotated[
        Annotated[str, AfterValidator(_refuse_bad_address)] | None, Field(validation_alias="ANTHROPIC_BASE_URL")
    ] = None
    """The server's own; none: the provider's."""
    model_base_urls: Annotated[
        Annotated[str, AfterValidator(_refuse_bad_list)] | None, Field(validation_alias=MODEL_BASE_URLS)
    ] = None
    """What clients and jobs may name besides, split by commas."""

    @property
    def sealer(self) -> Sealer:
        return Sealer(self.secret_key.get_secret_value() if self.secret_key else None)

    @property
    def base_urls(self) -> BaseUrls:
        return BaseUrls(self.anthropic_base_url, self.model_base_urls)
