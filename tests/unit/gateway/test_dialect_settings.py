"""What the settings of the published APIs have in common."""

import pytest

from services.gateway.dialects.cody_batch.settings import CodySettings
from services.gateway.dialects.orchestrator.settings import OrchestratorSettings


@pytest.mark.parametrize(
    ("api", "server", "url"),
    [
        ("", None, "https://github.com"),
        ("https://api.github.com", None, "https://github.com"),
        ("https://git.example/api/v3/", None, "https://git.example"),
        ("https://api.acme.ghe.com", None, "https://acme.ghe.com"),
        ("https://git.example/api/v3", "http://h:80/", "http://h:80"),
    ],
)
def test_where_names_are_cloned_from(api: str, server: str | None, url: str) -> None:
    for settings in (CodySettings, OrchestratorSettings):
        assert settings(github_api_url=api, github_server_url=server).server_url == url
