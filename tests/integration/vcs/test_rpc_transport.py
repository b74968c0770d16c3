"""A tool that knows address and token alone works with a vcs by reflection: over TCP, a Unix socket and mTLS."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from services.contracts.v1 import vcs_pb2 as pb
from services.runtime.grpc import NO_TLS, GrpcSecurity, make_channel
from services.vcs.rpc.server import SERVICE
from tests.integration.runtime.certificates import Authority
from tests.integration.vcs.conftest import Node, Remote
from tests.integration.vcs.rpc_serving import DEADLINE_SECONDS, LOOPBACK, TOKEN, Stub, parts_of, refusal, serving

HEALTH = "grpc.health.v1.Health"


class Tool:
    """Calls any method of any service by its name; blocks, so it belongs in a thread."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._database = ProtoReflectionDescriptorDatabase(channel)
        # A pool of its own: what this process has generated is not seen.
        self._pool = DescriptorPool(self._database)

    def services(self) -> set[str]:
        return set(self._database.get_services())

    def call(self, path: str, **fields: Any) -> list[Any]:
        """All messages of the answer. ``path``: service/method."""
        service, name = path.split("/")
        method = self._pool.FindServiceByName(service).methods_by_name[name]
        request, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        opened = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        callable_ = opened(
            f"/{path}", request_serializer=request.SerializeToString, response_deserializer=answer.FromString
        )
        answered: Any = callable_(request(**fields), timeout=DEADLINE_SECONDS, metadata=self._metadata)
        return list(answered) if method.server_streaming else [answered]


@contextmanager
def tool_at(address: str, security: GrpcSecurity, token: str = TOKEN) -> Iterator[Tool]:
    credentials = security.channel_credentials()
    options = [("grpc.ssl_target_name_override", "localhost")] if address.startswith("unix:") else []
    opened = (
        grpc.insecure_channel(address)
        if credentials is None
        else grpc.secure_channel(address, credentials, options=options)
    )
    with opened as channel:
        yield Tool(channel, token)


def clone_and_look(address: str, security: GrpcSecurity, repository: str) -> tuple[str, str]:
    """The mirror's head, and the one repository that the disk's report names."""
    with tool_at(address, security) as tool:
        assert tool.services() == {SERVICE, HEALTH, "grpc.reflection.v1alpha.ServerReflection"}
        *_, last = tool.call(f"{SERVICE}/Clone", repository=repository)
        (status,) = tool.call(f"{SERVICE}/JanitorStatus")
        return last.done.head_sha, status.mirrors[0].repository


def health(address: str, security: GrpcSecurity) -> int:
    with tool_at(address, security, token="") as tool:
        (answer,) = tool.call(f"{HEALTH}/Check", service=SERVICE)
        return int(answer.status)


@pytest.mark.parametrize("has_tls", [False, True])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_repository_is_cloned_by_reflection_alone(
    node: Node, remote: Remote, tmp_path: Path, kind: str, *, has_tls: bool
) -> None:
    authority = Authority(tmp_path / "authority")
    ours, theirs = (authority.security(name) for name in ("vcs", "tool")) if has_tls else (NO_TLS, NO_TLS)
    address = LOOPBACK if kind == "tcp" else f"unix:{tmp_path / 'socket' / 'vcs.sock'}"
    async with serving(parts_of(node), address, ours) as listening:
        cloned = await asyncio.to_thread(clone_and_look, listening, theirs, str(remote.bare))
        assert cloned == (remote.at("main"), remote.repository.key)
        assert await asyncio.to_thread(health, listening, theirs) == 1


async def test_a_wrong_token_is_told_in_words(node: Node) -> None:
    async with serving(parts_of(node)) as address, make_channel(address) as channel:
        error = await refusal(Stub(channel, "another").JanitorStatus(pb.JanitorStatusRequest()))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "give both the same" in (error.details() or "")
