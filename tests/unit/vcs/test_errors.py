"""No credential gets out by way of an error's text; commits are made of fit metadata alone."""

import pytest

from services.vcs.errors import GitError, MetadataRefusedError, VcsError, redact
from services.vcs.git.trees import CommitMetadata


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("https://user:tok@host/x", "https://***@host/x"),
        ("at 'https://x-access-token:a@b@host/x/y@v1'", "at 'https://***@host/x/y@v1'"),
        ("ssh://git@host/x and http://t@h", "ssh://***@host/x and http://***@h"),
        ("https://host/x@v1 has none", "https://host/x@v1 has none"),
    ],
)
def test_userinfo_is_redacted(text: str, redacted: str) -> None:
    assert redact(text) == redacted
    assert str(VcsError(text)) == redacted
    assert GitError("failed", git_message=text).git_message == redacted


@pytest.mark.parametrize(
    ("name", "email", "time", "message"),
    [
        ("", "a@b", 0, "m"),
        (" . ", "a@b", 0, "m"),
        ("A <x>", "a@b", 0, "m"),
        ("A\nB", "a@b", 0, "m"),
        ("A", "", 0, "m"),
        ("A", "a@b", -1, "m"),
        ("A", "a@b", 2**40, "m"),
        ("A", "a@b", 0, " \n"),
        ("A", "a@b", 0, "m\0"),
    ],
)
def test_unfit_commit_metadata_is_refused(name: str, email: str, time: int, message: str) -> None:
    with pytest.raises(MetadataRefusedError):
        CommitMetadata(name, email, time, message)
