"""The document is valid, and says of every route what is there, no more and no less."""

from typing import Any

import orjson
import pytest
from aiohttp import web
from openapi_spec_validator import validate

from services.gateway.app import application, assemble
from services.gateway.openapi import document
from services.gateway.routes import OPERATIONS
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database


@pytest.fixture
def description() -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(document(OPERATIONS))
    return found


async def test_every_route_is_in_the_document_and_the_other_way_round(description: dict[str, Any]):
    gateway = assemble(
        Database("postgresql://nowhere", size=1, name="x"), Bus("nats://nowhere", name="x"), api_key=None
    )
    app = application(gateway, max_body_bytes=1_024)
    routed = {(route.method, canonical(route)) for route in app.router.routes()}
    documented = {(method.upper(), path) for path, item in description["paths"].items() for method in item}
    heads = {("HEAD", path) for method, path in documented if method == "GET"}
    pages = {("GET", "/changesets/{id}"), ("HEAD", "/changesets/{id}")}
    webhooks = {("POST", "/webhooks/github")}
    assert routed == documented | heads | pages | webhooks


def canonical(route: web.AbstractRoute) -> str:
    assert route.resource is not None
    return route.resource.canonical


def test_the_document_is_valid(description: dict[str, Any]):
    validate(description)


def test_every_operation_has_a_name_of_its_own():
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)


def test_only_health_and_the_document_need_no_key(description: dict[str, Any]):
    public = {
        path for path, item in description["paths"].items() for each in item.values() if each.get("security") == []
    }
    assert public == {"/health", "/openapi.json"}
    assert description["security"] == [{"apiKey": []}]


def test_parameters_are_those_that_are_taken(description: dict[str, Any]):
    parameters = description["paths"]["/v1/jobs"]["get"]["parameters"]
    by_name = {parameter["name"]: parameter for parameter in parameters}
    assert set(by_name) == {"state", "kind", "name", "repository", "createdAfter", "createdBefore", "limit", "cursor"}
    assert by_name["limit"]["schema"] == {"type": "integer", "default": 50, "minimum": 1, "maximum": 200}
    assert by_name["state"]["schema"]["items"] == {"$ref": "#/components/schemas/JobState"}
