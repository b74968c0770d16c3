"""A dialect's OpenAPI 3.1 document: made as the native one is, from its operations, with its own errors and keys."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic.json_schema import models_json_schema

from services.gateway import openapi as native
from services.gateway.dialects.dialect import Dialect

_REFERENCE = "#/components/schemas/{model}"


def document(dialect: Dialect, root: str) -> bytes:
    """The document as JSON. ``root``: of its paths, without a slash at its end."""
    described: dict[str, Any] = orjson.loads(native.document(dialect.operations))
    _, errors = models_json_schema([(dialect.error, "serialization")], by_alias=True, ref_template=_REFERENCE)
    schemas = described["components"]["schemas"]
    for name in ("Problem", "ProblemField"):
        del schemas[name]
    reference = {"$ref": _REFERENCE.format(model=dialect.error.__name__)}
    described["components"] = {
        "schemas": schemas | errors["$defs"],
        "responses": {
            "Problem": {"description": "what was wrong", "content": {"application/json": {"schema": reference}}}
        },
        "securitySchemes": {name: dict(scheme) for name, scheme in dialect.security.items()},
    }
    described["security"] = [{name: []} for name in dialect.security]
    described["info"] = {"title": dialect.title, "version": "1", "description": dialect.description}
    described["servers"] = [{"url": root or "/"}]
    return orjson.dumps(described)
