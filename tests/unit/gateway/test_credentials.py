"""Keys out of headers; whatever else a header holds is no key."""

import base64

import pytest

from services.gateway.credentials import basic_key, bearer_key


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("header", ["Bearer qd_key", "bearer qd_key", "BEARER  qd_key "])
def test_a_bearer_key_is_found(header: str):
    assert bearer_key(header) == "qd_key"


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "qd_key", "Bearer a b", "Bearer \udc80", "Basic qd_key", "Bearer " + "x" * 201]
)
def test_anything_else_is_no_bearer_key(header: str):
    assert bearer_key(header) is None


@pytest.mark.parametrize("pair", ["anyone:qd_key", ":qd_key"])
def test_a_password_is_found_whoever_the_user_is(pair: str):
    assert basic_key(basic(pair)) == "qd_key"


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !", "Basic \xe4", basic("qd_key"), basic("a:"), "Bearer qd_key", "Basic /w=="]
)
def test_anything_else_is_no_password(header: str):
    assert basic_key(header) is None
