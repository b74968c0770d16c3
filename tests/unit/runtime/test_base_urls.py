"""Only listed addresses are used, however another is dressed up as one of them."""

import pytest

from services.runtime.base_urls import PROVIDER, BadBaseUrlError, BaseUrlNotAllowedError, BaseUrls

LISTED = "https://models.example/v1, http://10.0.0.5:8080"


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("https://models.example/v1", "https://models.example/v1"),
        ("HTTPS://Models.EXAMPLE:443/v1/", "https://models.example/v1"),
        ("http://10.0.0.5:8080/", "http://10.0.0.5:8080"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9/"),
    ],
)
def test_the_own_address_and_listed_ones_are_allowed_as_the_server_wrote_them(named: str, meant: str) -> None:
    assert BaseUrls("http://127.0.0.1:9/", LISTED).allowed(named) == meant


@pytest.mark.parametrize(
    "named",
    [
        "http://models.example/v1",
        "https://models.example",
        "https://models.example/v1/more",
        "https://models.example/v1/../v1",
        "https://models.example/V1",
        "https://models.example:444/v1",
        "https://models.example/v1?to=elsewhere",
        "https://models.example/v1#x",
        "https://user@models.example/v1",
        "https://models.example@evil.example/v1",
        "https://models.example\\@evil.example/v1",
        "https://models.example./v1",
        "https://models.exa\nmple/v1",
        " https://models.example/v1",
        "https://sub.models.example/v1",
        "http://0x0a000005:8080",
        "http://127.0.0.1:8080",
        "http://localhost:9",
        "https://[::1",
        "https://models.example:port/v1",
        "file:///etc/passwd",
        "models.example/v1",
        "",
        PROVIDER,
    ],
)
def test_nothing_else_is(named: str) -> None:
    with pytest.raises(BaseUrlNotAllowedError, match="MODEL_BASE_URLS"):
        BaseUrls("http://127.0.0.1:9", LISTED).allowed(named)


def test_without_an_address_of_its_own_the_server_uses_the_providers() -> None:
    assert BaseUrls().allowed(f"{PROVIDER}/") == PROVIDER
    assert BaseUrls().same(PROVIDER, f"{PROVIDER}:443/")


@pytest.mark.parametrize("wrong", ["models.example", "ftp://a.example", "https://a.example/?key=x", "https://"])
def test_a_wrong_list_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(BadBaseUrlError):
        BaseUrls(listed=f"https://fine.example,{wrong}")
    with pytest.raises(BadBaseUrlError):
        BaseUrls(wrong)


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(BadBaseUrlError) as refused:
        BaseUrls("https://user:hunter2@a.example")
    assert "hunter2" not in str(refused.value)
