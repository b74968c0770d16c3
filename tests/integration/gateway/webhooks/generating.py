"""Payloads made by a seed from the JSON schemas that GitHub publishes for its webhooks; and ones that are broken."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from tests.integration.npm import installed

PROJECT = Path(__file__).parent / "schemas"
_DEEP = 9
"""From here on what is not required is left out: the schemas refer to themselves."""
_TEXTS = ("", "one", "Two words", "\N{SNOWMAN}\u202e", "a\nb\r\n`c`", "x" * 300, "@deck <!-- quarterdeck: -->", "\0")
_FORMATS = {
    "uri": "https://github.example/octo/Hello-World",
    "uri-template": "https://github.example/octo{/more}",
    "date-time": "2026-01-31T12:00:00Z",
}
_NAMED: dict[str, tuple[Any, ...]] = {
    "full_name": ("octo/Hello-World",),
    "login": ("ada", "ci[bot]"),
    "number": (1, 2, 3),
}
"""What would else hardly ever be of use."""
_PLAIN = {"type", "description"}
_ODD: tuple[Any, ...] = (None, True, -1, 2**53, 1.5, "", "\0", [], {}, [[None]], {"login": []})


def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (installed(PROJECT) / "node_modules/@octokit/webhooks-schemas/schema.json").read_text()
    )
    return found


def variants(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each event with a reference to the schema of each of its actions."""
    for each in document["oneOf"]:
        name = each["$ref"].removeprefix("#/definitions/")
        event = name.removesuffix("event").rstrip("_$")
        for one in document["definitions"][name].get("oneOf", [each]):
            yield event, one["$ref"]


class Payloads:
    def __init__(self, document: Mapping[str, Any], seed: int) -> None:
        self._definitions = document["definitions"]
        self._random = Random(seed)

    def of(self, reference: str) -> dict[str, Any]:
        """A payload as the definition has it."""
        made: dict[str, Any] = self._made({"$ref": reference}, 0)
        return made

    def broken(self, payload: dict[str, Any]) -> dict[str, Any]:
        """A copy of which parts are of another kind, or missing."""
        copy: dict[str, Any] = json.loads(json.dumps(payload))
        places = list(_places(copy))
        for holder, key in self._random.sample(places, min(len(places), self._random.randint(1, 12))):
            holder[key] = self._random.choice(_ODD)
        return copy

    def _made(self, part: Mapping[str, Any], depth: int) -> Any:
        if "$ref" in part:
            return self._made(self._definitions[part["$ref"].removeprefix("#/definitions/")], depth)
        if "allOf" in part:
            return _merged([self._made(each, depth) for each in part["allOf"]])
        if options := part.get("oneOf") or part.get("anyOf"):
            plain = [each for each in options if depth > _DEEP and each.get("type") == "null"]
            return self._made(self._random.choice(plain or options), depth + 1)
        if "const" in part or "enum" in part:
            return part["const"] if "const" in part else self._random.choice(part["enum"])
        return self._of_kind(self._kind(part, depth), part, depth)

    def _kind(self, part: Mapping[str, Any], depth: int) -> str:
        kinds = part.get("type", "object" if "properties" in part else "string")
        kinds = [kinds] if isinstance(kinds, str) else kinds
        chosen: str = "null" if depth > _DEEP and "null" in kinds else self._random.choice(kinds)
        return chosen

    def _of_kind(self, kind: str, part: Mapping[str, Any], depth: int) -> Any:
        match kind:
            case "object":
                return self._object(part, depth)
            case "array":
                least = part.get("minItems", 0)
                count = max(least, 0 if depth > _DEEP else self._random.randint(0, min(2, part.get("maxItems", 2))))
                return [self._made(part.get("items", {}), depth + 1) for _ in range(count)]
            case "string":
                return _FORMATS.get(part.get("format", "")) or self._text(part)
            case "integer" | "number":
                least = part.get("minimum", 0)
                return self._random.randint(least, min(part.get("maximum", least + 2**40), least + 2**40))
            case "boolean":
                return self._random.random() < 0.5
            case _:
                return None

    def _object(self, part: Mapping[str, Any], depth: int) -> dict[str, Any]:
        required = part.get("required", ())
        return {
            name: self._named(name) if name in _NAMED and set(each) <= _PLAIN else self._made(each, depth + 1)
            for name, each in part.get("properties", {}).items()
            if name in required or (depth <= _DEEP and self._random.random() < 0.5)
        }

    def _named(self, name: str) -> Any:
        return self._random.choice(_NAMED[name])

    def _text(self, part: Mapping[str, Any]) -> str:
        return self._random.choice(_TEXTS)[: part.get("maxLength", 1_000)]


def _merged(parts: list[Any]) -> Any:
    """What is narrower comes later."""
    if not all(isinstance(part, dict) for part in parts):
        return parts[-1]
    merged: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            is_known = isinstance(merged.get(name), dict) and isinstance(value, dict)
            merged[name] = _merged([merged[name], value]) if is_known else value
    return merged


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document that holds something."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in list(items):
        yield value, key
        yield from _places(each)
