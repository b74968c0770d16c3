"""Which GitHub is meant by which settings, what is on it, and the words for settings that mean none."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services.vcs.errors import ForgeRefusedError
from services.vcs.forges.github import GitHubConfig, GitHubConfigError
from services.vcs.git.repositories import parse_repository

SECRET = "ghp_" + "s" * 36


def _pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("api_url", "server_url", "graphql_url"),
    [
        ("https://api.github.com", "https://github.com", "https://api.github.com/graphql"),
        ("https://API.github.com:443/", "https://github.com", "https://api.github.com/graphql"),
        ("https://git.corp/api/v3/", "https://git.corp", "https://git.corp/api/graphql"),
        ("https://git.corp:8443/api/v3", "https://git.corp:8443", "https://git.corp:8443/api/graphql"),
        ("https://api.octo.ghe.com", "https://octo.ghe.com", "https://api.octo.ghe.com/graphql"),
    ],
)
def test_the_server_is_taken_from_the_api(api_url: str, server_url: str, graphql_url: str) -> None:
    config = GitHubConfig(token="t", api_url=api_url)
    assert (config.server_url, config.graphql_url) == (server_url, graphql_url)


@pytest.mark.parametrize(
    ("address", "slug"),
    [
        ("https://github.com/Acme/app.git", "Acme/app"),
        ("git@github.com:acme/app", "acme/app"),
        ("ssh://git@github.com/acme/app.git", "acme/app"),
        ("https://github.com/acme/group/app", None),
        ("https://github.com/acme", None),
        ("https://github.com.evil.org/acme/app", None),
        ("https://github.com:8443/acme/app", None),
        ("https://gitlab.com/acme/app", None),
        ("/srv/git/app", None),
    ],
)
def test_what_is_here(address: str, slug: str | None) -> None:
    config = GitHubConfig(token="t")
    repository = parse_repository(address, allow_local=True)
    assert config.is_here(repository) is (slug is not None)
    if slug:
        assert str(config.slug_of(repository)) == slug
    else:
        with pytest.raises(ForgeRefusedError, match=r"is not on https://github\.com"):
            config.slug_of(repository)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "either GITHUB_TOKEN or GITHUB_APP_ID"),
        ({"token": SECRET, "app_id": "1"}, "either GITHUB_TOKEN or GITHUB_APP_ID"),
        ({"app_id": "1"}, "GITHUB_APP_PRIVATE_KEY is empty"),
        ({"app_id": "1", "private_key": SECRET}, "GITHUB_APP_PRIVATE_KEY cannot be read"),
        ({"token": SECRET, "api_url": "https://git.corp/api"}, "set GITHUB_SERVER_URL"),
        ({"token": SECRET, "api_url": "http://git.corp/api/v3"}, "GITHUB_API_URL is http"),
        ({"token": SECRET, "api_url": "git.corp"}, "GITHUB_API_URL is no plain https URL"),
        ({"token": SECRET, "api_url": f"https://{SECRET}@git.corp/api/v3"}, "GITHUB_API_URL is no plain https URL"),
        ({"token": SECRET, "server_url": "ftp://git.corp"}, "GITHUB_SERVER_URL is no plain https URL"),
    ],
)
def test_settings_that_name_no_way_in(members: dict[str, Any], words: str) -> None:
    with pytest.raises(GitHubConfigError, match=words) as caught:
        GitHubConfig(**members)
    assert SECRET not in str(caught.value)


def test_a_key_is_an_rsa_key() -> None:
    with pytest.raises(GitHubConfigError, match="no RSA key"):
        GitHubConfig(app_id="1", private_key=_pem(ed25519.Ed25519PrivateKey.generate()))
    pem = _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    config = GitHubConfig(app_id="1", private_key=pem.replace("\n", "\\n"))
    assert config.private_key == pem.strip()
    assert config.credential_settings == "GITHUB_APP_ID and GITHUB_APP_PRIVATE_KEY"


def test_its_text_holds_no_secret() -> None:
    assert SECRET not in repr(GitHubConfig(token=SECRET))
