"""Git's raw and numstat records, joined by path."""

from services.vcs.git.diffstat import parse_diffstat

ZERO, BLOB = "0" * 40, "1" * 40


def raw(old_mode: str, new_mode: str, status: str, *paths: str) -> str:
    return f":{old_mode} {new_mode} {ZERO} {BLOB} {status}\0" + "".join(f"{path}\0" for path in paths)


def test_nothing_changed() -> None:
    assert parse_diffstat(b"") == ()


def test_every_kind_of_change_gets_its_counts() -> None:
    output = (
        raw("000000", "100644", "A", "new\nline\tand tab")
        + raw("100644", "100644", "M", "image.png")
        + raw("100644", "000000", "D", "old")
        + raw("100644", "100755", "R087", "from", "to")
        + raw("100644", "120000", "T", "link")
        + "3\t0\tnew\nline\tand tab\0-\t-\timage.png\0000\t7\told\0002\t1\t\0from\0to\0001\t9\tlink\0"
    )
    changes = parse_diffstat(output.encode())
    assert [(c.path, c.change, c.insertions, c.deletions, c.binary) for c in changes] == [
        (b"new\nline\tand tab", "added", 3, 0, False),
        (b"image.png", "modified", 0, 0, True),
        (b"old", "deleted", 0, 7, False),
        (b"to", "renamed", 2, 1, False),
        (b"link", "type_changed", 1, 9, False),
    ]
    assert changes[3].old_mode == "100644"
    assert changes[3].new_mode == "100755"
    assert changes[4].new_blob == BLOB
