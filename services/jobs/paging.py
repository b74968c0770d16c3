"""Cursors of lists in the order of one column; one works also where the row that it was made from is gone."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from services.contracts.text import is_storable
from services.jobs.errors import BadCursorError
from services.runtime.postgres import Record


def next_cursor(rows: Sequence[Record], limit: int, column: str) -> str | None:
    """The cursor behind the first ``limit`` of ``rows``; None where there are no more."""
    if len(rows) <= limit:
        return None
    return base64.urlsafe_b64encode(str(rows[limit - 1][column]).encode()).decode().rstrip("=")


def text_behind(cursor: str | None) -> str | None:
    """The text that a list goes on behind. Raises ``BadCursorError``."""
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise BadCursorError from error
    if not is_storable(text):
        raise BadCursorError
    return text
