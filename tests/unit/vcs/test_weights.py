"""What is named where a change is too large."""

import pytest

from services.vcs.worktrees.weights import MOST_NAMED, heaviest

MIB = 1024**2
PACKAGES = {f"web/node_modules/{number}/index.js": MIB // 10 for number in range(800)}


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"big.bin": 80 * MIB, "src/a.py": 100}, "big.bin (80 MiB)"),
        ({"data/big.bin": 80 * MIB, "data/small": 100}, "data/big.bin (80 MiB)"),
        ({**PACKAGES, "src/a.py": 100}, "web/node_modules/ (80 MiB in 800 files)"),
        (
            {**PACKAGES, "dist/app.js": 60 * MIB, "dist/app.css": MIB},
            "web/node_modules/ (80 MiB in 800 files), dist/app.js (60 MiB)",
        ),
        ({f"{number}/a": MIB for number in range(70)}, "files in many folders (70 MiB in 70 files)"),
        ({"n\x1b\udcff": 5}, "n?? (5 bytes)"),
        ({"a": 0}, "a (0 bytes)"),
    ],
)
def test_the_largest_come_first_and_a_folder_of_many_stands_for_them(sizes: dict[str, int], words: str):
    assert heaviest(sizes) == words


def test_no_more_are_named_than_help():
    assert heaviest({f"f{number}": 10 * MIB - number for number in range(9)}).count("MiB") == MOST_NAMED
