"""The OpenAPI 3.1 document, made from the operations as they are routed and the models that validate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.contracts.rest import Problem
from services.gateway.operations import Answer, Operation

_REFERENCE = "#/components/schemas/{model}"
_DESCRIPTION = """Fleets of coding agents over Git repositories.

Every answer has an `X-Request-Id`; every error is an RFC 9457 problem document that names the fields. A 503 has a
`Retry-After`."""

_PARAMETER = re.compile(r"\{(\w+)\}")
Schemas = dict[str, Any]
Mode = Literal["validation", "serialization"]


def document(operations: Sequence[Operation]) -> bytes:
    """The document as JSON."""
    schemas = _schemas(operations)
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    for query in {operation.query.__name__ for operation in operations}:
        schemas.pop(query, None)  # its properties are parameters now
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "Quarterdeck", "version": "1", "description": _DESCRIPTION},
            "paths": paths,
            "components": {
                "schemas": schemas,
                "responses": {"Problem": _problem()},
                "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"apiKey": []}],
        }
    )


def _schemas(operations: Sequence[Operation]) -> Schemas:
    models: dict[tuple[type[BaseModel], Mode], None] = {(Problem, "serialization"): None}
    for operation in operations:
        models[operation.query, "validation"] = None
        if operation.body is not None:
            models[operation.body, "validation"] = None
        for answer in operation.answers:
            if answer.model is not None:
                models[answer.model, "serialization"] = None
    _, schema = models_json_schema(list(models), by_alias=True, ref_template=_REFERENCE)
    found: Schemas = schema["$defs"]
    return found


def _operation(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    description: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": _parameters(operation, schemas),
        "responses": {str(answer.status): _answer(answer) for answer in operation.answers},
    }
    description["responses"]["default"] = {"$ref": "#/components/responses/Problem"}
    if operation.body is not None:
        content = {"application/json": {"schema": _reference(operation.body)}}
        description["requestBody"] = {"required": True, "content": content}
    if operation.is_public:
        description["security"] = []
    return description


def _parameters(operation: Operation, schemas: Schemas) -> list[dict[str, Any]]:
    headers = [
        {"name": header.name, "in": "header", "description": header.description, "schema": {"type": "string"}}
        for header in operation.headers
    ]
    properties = schemas[operation.query.__name__].get("properties", {})
    queries = [_query_parameter(name, schema) for name, schema in properties.items()]
    return [*(_path_parameter(operation, name) for name in _PARAMETER.findall(operation.path)), *queries, *headers]


def _path_parameter(operation: Operation, name: str) -> dict[str, Any]:
    parameter = {"name": name, "in": "path", "required": True}
    if (description := operation.parameters.get(name)) is None:
        return {**parameter, "schema": {"type": "string", "format": "uuid"}}
    return {**parameter, "description": description, "schema": {"type": "string"}}


def _query_parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    described = {"description": schema["description"]} if "description" in schema else {}
    # A parameter that is not given is left out: it can be null in Python alone.
    shapes = [shape for shape in schema.get("anyOf", []) if shape != {"type": "null"}]
    shape = (
        shapes[0] if shapes else {key: value for key, value in schema.items() if key not in ("description", "title")}
    )
    return {"name": name, "in": "query", **described, "schema": shape}


def _answer(answer: Answer) -> dict[str, Any]:
    schema = _reference(answer.model) if answer.model else {}
    headers = {name: {"schema": {"type": "string"}} for name in answer.headers}
    return {
        "description": answer.description,
        "content": {answer.media_type: {"schema": schema}},
        **({"headers": headers} if headers else {}),
    }


def _problem() -> dict[str, Any]:
    return {
        "description": "what was wrong, and with which fields",
        "content": {"application/problem+json": {"schema": _reference(Problem)}},
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}
