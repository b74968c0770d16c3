import asyncio

import pytest

from services.agent.sandbox.reading import Kept
from services.agent.tools.showing import MAX_OUTPUT_CHARACTERS

LIMIT = 1024**2


def kept(*chunks: bytes, limit: int = LIMIT) -> Kept:
    kept = Kept(limit)
    for chunk in chunks:
        kept.add(chunk)
    return kept


def test_what_fits_is_kept_and_shown_as_it_is() -> None:
    assert kept(b"one\n", "zwei ü\n".encode()).excerpt() == ("one\nzwei ü\n", True)


def test_controls_and_bytes_that_are_no_text_are_made_visible() -> None:
    assert kept(b"\x1b[2J\xff\x00ok").excerpt() == ("\\x1b[2J\\xff\\x00ok", True)


@pytest.mark.parametrize("size", [30_001, 119_999, 120_001, 1_000_000, 50_000_000])
def test_of_long_output_head_and_tail_are_shown(size: int) -> None:
    many = kept(b"HEAD", *[b"x" * 65_536] * (size // 65_536), b"x" * (size % 65_536), b"TAIL")
    text, is_all = many.excerpt()
    assert not is_all
    assert text.startswith("HEADxx")
    assert text.endswith("xxTAIL")
    assert f"{size + 8:,} bytes" in text
    assert len(text) < MAX_OUTPUT_CHARACTERS + 100
    assert len(many.content()) == min(size + 8, LIMIT) or LIMIT - 64 < len(many.content()) <= LIMIT


def test_a_character_cut_in_two_does_not_show() -> None:
    text, _ = kept(b"x" + "ü".encode() * 100_000).excerpt()
    head, tail = text.split("\n[…")
    assert set(head) == {"x", "ü"}
    assert "\\x" not in head
    assert tail.endswith("üü")


async def test_a_stream_is_read_to_its_end() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"a" * 200_000)
    stream.feed_eof()
    read = Kept(LIMIT)
    await read.read(stream)
    assert read.content() == b"a" * 200_000
