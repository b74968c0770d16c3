"""A sign-off joins the trailers of a message, stands once, and never becomes part of the subject or the text."""

import pytest

from services.contracts.trailers import with_trailer

ADA = "Signed-off-by: Ada <ada@example.org>"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Subject", f"Subject\n\n{ADA}\n"),
        ("Subject\n\n\n", f"Subject\n\n{ADA}\n"),
        ("Subject\n\nText.\n", f"Subject\n\nText.\n\n{ADA}\n"),
        ("Subject\n\nText.\n\nFixes: 12\n", f"Subject\n\nText.\n\nFixes: 12\n{ADA}\n"),
        ("Subject\n\nFixes: 12\n  and 13\n", f"Subject\n\nFixes: 12\n  and 13\n{ADA}\n"),
        # A subject that looks like a trailer is a subject.
        ("fix: subject", f"fix: subject\n\n{ADA}\n"),
        # Text that holds one such line is text.
        ("Subject\n\nNote: this\nis text.", f"Subject\n\nNote: this\nis text.\n\n{ADA}\n"),
        # Unless Git wrote one of its lines.
        (
            "Subject\n\nReviewed at length\nSigned-off-by: Bob <b@example.org>",
            f"Subject\n\nReviewed at length\nSigned-off-by: Bob <b@example.org>\n{ADA}\n",
        ),
        (f"Subject\n\n{ADA}\n", f"Subject\n\n{ADA}\n"),
        (f"Subject\n\n{ADA}\nFixes: 12\n", f"Subject\n\n{ADA}\nFixes: 12\n"),
        # One that stands in the text is none.
        (f"Subject\n\n{ADA}\n\nText.", f"Subject\n\n{ADA}\n\nText.\n\n{ADA}\n"),
    ],
)
def test_it_is_put_where_trailers_are(message: str, expected: str) -> None:
    assert with_trailer(message, "Signed-off-by", "Ada <ada@example.org>") == expected
    assert with_trailer(expected, "Signed-off-by", "Ada <ada@example.org>") == expected, "once"
