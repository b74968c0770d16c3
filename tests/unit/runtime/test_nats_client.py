"""A message as it goes over the line, read as a server does."""

import pytest

from services.runtime.nats_client import Outgoing


@pytest.mark.parametrize("data", [b"", b"x", b"\r\nPUB a 0\r\n\r\n", bytes(range(256)) * 100])
@pytest.mark.parametrize("headers", [{}, {"Qd-Client": "c"}, {"Qd-Sequence": "1", "Qd-Client": "c" * 36}])
def test_a_message_has_the_lengths_that_it_says(data: bytes, headers: dict[str, str]) -> None:
    message = Outgoing("qd.evt.j.r.log", data, "id-1", headers)

    first, _, rest = message.command().partition(b"\r\n")

    verb, subject, head_bytes, all_bytes = first.split(b" ")
    assert (verb, subject) == (b"HPUB", b"qd.evt.j.r.log")
    head, body = rest[: int(head_bytes)], rest[int(head_bytes) :]
    assert body == data + b"\r\n"
    assert int(all_bytes) == len(head) + len(data)
    version, *lines, end, nothing = head.split(b"\r\n")
    assert (version, end, nothing) == (b"NATS/1.0", b"", b"")
    assert dict(line.decode().split(": ") for line in lines) == message.all_headers
    assert message.all_headers == {"Nats-Msg-Id": "id-1", **headers}
