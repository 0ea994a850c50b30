"""Text as Markdown that shows it and does nothing else: no HTML, no link, no picture, no column or line of its own.

Titles, notes and reasons come from files that strangers send. Only what could act is escaped, so that the source stays
readable: `<`, `&`, the backslash, the bar of tables, and the bracket that would make `[text](address)` a link.
"""

import re
from typing import Final

from shared.kernel.visible import visible_line

_LINK: Final = re.compile(r"\](?=[(\[:])")
_EMPHASIS: Final = "**"


def text(words: str) -> str:
    """Return words as one line of Markdown; the emphasis of a whole sentence, `**so**`, stays."""
    if len(words) > 4 and words.startswith(_EMPHASIS) and words.endswith(_EMPHASIS):
        return f"{_EMPHASIS}{text(words[2:-2])}{_EMPHASIS}"
    line = visible_line(words).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    return _LINK.sub(r"\]", line)


def cell(words: str) -> str:
    """Return words as a cell of a table."""
    return text(words).replace("|", "\\|")


def code(words: str) -> str:
    """Return words as a code span."""
    return "`" + visible_line(words).replace("`", "'") + "`"
