"""The rules of edit_file as pure text: what counts as found, how line ends are kept, what to hint at otherwise."""

import difflib
import re

from services.agent.tools.calls import ToolError
from services.agent.tools.showing import shortened, visible_line
from services.agent.workspace.reading import BYTE_ORDER_MARK, is_crlf

_HINT_LINES = 50
_HINT_TEXT = 256 * 1024
"""How much is looked at for a hint: both bounds keep it at about 20 ms, as this runs on the event loop."""
_MAX_COUNT = 1_000
_MAX_CHARACTERS = 1024 * 1024
_HINT_CHARACTERS = 200
_WORD = re.compile(r"\w+")


def replaced(text: str, old: str, new: str, *, replace_all: bool, path: str) -> tuple[str, int]:
    """``text`` with ``old`` replaced by ``new``, and how often.

    Without ``replace_all``, ``old`` must occur exactly once, overlapping occurrences counted too. A file whose lines
    all end in CRLF is matched and changed as the model sees it, and keeps its line ends and byte order mark.
    Raises ``ToolError``.
    """
    _check(old, new)
    mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
    body = text.removeprefix(BYTE_ORDER_MARK)
    if is_crlf(body):
        old, new = _with_crlf(old), _with_crlf(new)
    found = body.find(old)
    if found < 0:
        raise ToolError(f"old_string does not occur in {path!r}. {hint(body, old)}")
    if not replace_all and body.find(old, found + 1) >= 0:
        raise ToolError(
            f"old_string occurs {occurrences(body, old)} times in {path!r}: add lines around it until it occurs once, "
            "or set replace_all to true"
        )
    count = body.count(old)
    # A short old_string and a long new_string multiply: find out before the memory is taken.
    if len(body) + count * (len(new) - len(old)) > _MAX_CHARACTERS:
        raise ToolError(f"replacing {count} times would make {path!r} larger than 1 MB: replace less at once")
    return mark + body.replace(old, new), count


def _check(old: str, new: str) -> None:
    if not old:
        raise ToolError("old_string is empty: give the text to replace, or use write_file to make a file")
    if old == new:
        raise ToolError("old_string and new_string are the same: nothing would change; give the new text")


def _with_crlf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def occurrences(text: str, wanted: str) -> str:
    """How often ``wanted`` stands in ``text``, overlapping ones included, in words."""
    count = 0
    position = text.find(wanted)
    while position >= 0 and count < _MAX_COUNT:
        count += 1
        position = text.find(wanted, position + 1)
    return str(count) if position < 0 else f"more than {count}"


def hint(text: str, old: str) -> str:
    """What the model most likely meant, in one sentence."""
    if "".join(old.split()) and "".join(old.split()) in "".join(text.split()):
        return "The file holds it with other white space: copy the lines exactly as read_file shows them."
    wanted = next((line.strip() for line in old.splitlines() if line.strip()), "")
    number, line = _nearest(text, wanted)
    if not line:
        return "Nothing like it is in the file: read it again with read_file."
    return f"The nearest line is {number}: {shortened(visible_line(line), _HINT_CHARACTERS)}"


def _nearest(text: str, wanted: str) -> tuple[int, str]:
    """Number and text of the line most like ``wanted``; ``(0, "")`` where none is."""
    words = set(_WORD.findall(wanted[:_HINT_CHARACTERS]))
    lines = [(number, line.strip()) for number, line in enumerate(text[:_HINT_TEXT].split("\n"), 1) if line.strip()]
    # Few lines share most words with what is wanted; only those are worth the slow comparison.
    lines.sort(key=lambda item: -len(words.intersection(_WORD.findall(item[1]))))
    matcher = difflib.SequenceMatcher(b=wanted[:_HINT_CHARACTERS], autojunk=False)
    best, best_ratio = (0, ""), 0.5
    for number, line in lines[:_HINT_LINES]:
        matcher.set_seq1(line[:_HINT_CHARACTERS])
        if matcher.quick_ratio() > best_ratio and (ratio := matcher.ratio()) > best_ratio:
            best, best_ratio = (number, line), ratio
    return best
