"""JSON Schemas of the messages of a protobuf, as their proto3 JSON form has them, with the comments of the source."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

PROTO = Path(__file__).resolve().parent.parent / "proto"

Json = dict[str, Any]

_Type = FieldDescriptorProto
SCALARS: dict[int, Json] = {
    _Type.TYPE_STRING: {"type": "string"},
    _Type.TYPE_BOOL: {"type": "boolean"},
    _Type.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    _Type.TYPE_INT32: {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    # The proto3 JSON form of 64 bits is a string: a number of JavaScript has 53.
    _Type.TYPE_UINT64: {"type": "string", "pattern": "^[0-9]+$"},
    _Type.TYPE_INT64: {"type": "string", "pattern": "^-?[0-9]+$"},
    _Type.TYPE_DOUBLE: {"type": "number"},
}
TIMESTAMP: Json = {"type": "string", "format": "date-time"}


def reference(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def described(source: str) -> FileDescriptorProto:
    """The file ``source`` of proto/ as protoc sees it, comments included."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "events.bin"
        command = [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}"),
            *("--include_source_info", f"--descriptor_set_out={out}", source),
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  a command of ours
        if done.returncode:
            sys.exit(done.stderr)
        files = FileDescriptorSet.FromString(out.read_bytes()).file
    return next(file for file in files if file.name == source)


class Schemas:
    """JSON Schemas of the protobuf's messages, as their proto3 JSON form has them."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._comments = {
            tuple(each.path): " ".join(each.leading_comments.split()) for each in file.source_code_info.location
        }
        self._messages = {message.name: (index, message) for index, message in enumerate(file.message_type)}

    def message(self, name: str) -> DescriptorProto:
        return self._messages[name][1]

    def names(self) -> Iterator[str]:
        return iter(self._messages)

    def comment(self, name: str, field: int | None = None) -> str:
        """What the source says of a message, or of the field at that place in it; empty where it says nothing."""
        path = (4, self._messages[name][0]) + (() if field is None else (2, field))
        return self._comments.get(path, "")

    def properties(self, name: str) -> Json:
        """Of the fields that stand in no `oneof`."""
        fields = enumerate(self.message(name).field)
        return {
            field.json_name: self._field(name, n, field) for n, field in fields if not field.HasField("oneof_index")
        }

    def schema(self, name: str) -> Json:
        """A field with its default value is left out, so none is required."""
        comment = self.comment(name)
        head = {"type": "object"} | ({"description": comment} if comment else {})
        properties = self.properties(name)
        return head | ({"properties": properties} if properties else {})

    def _field(self, message: str, place: int, field: FieldDescriptorProto) -> Json:
        schema = self._type(field)
        if field.label == _Type.LABEL_REPEATED:
            schema = {"type": "array", "items": schema}
        comment = self.comment(message, place)
        return schema | ({"description": comment} if comment else {})

    def _type(self, field: FieldDescriptorProto) -> Json:
        if field.type_name == ".google.protobuf.Timestamp":
            return dict(TIMESTAMP)
        if field.type == _Type.TYPE_MESSAGE:
            return reference("schemas", field.type_name.rpartition(".")[2])
        if field.type not in SCALARS:
            raise NotImplementedError(
                f"{field.name}: no JSON Schema is known here for type {field.type}; add it to SCALARS"
            )
        return dict(SCALARS[field.type])
