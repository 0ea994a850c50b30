r"""Text of strangers made harmless where it is shown: what a terminal or a reader would obey is written out instead.

Names, reasons and texts come from files, from other machines and from models. Control characters, which command
terminals, and marks that turn or hide the text around them are shown as escapes (`\x1b`, `\u202e`).
"""


def visible(text: str, *, keep: str = "\n\t") -> str:
    """Return `text` with every character that nobody sees written as an escape; those in `keep` stay."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escaped(one) for one in text)


def visible_line(text: str) -> str:
    """Return `text` as `visible` does, in one line: it cannot pretend to be the next one."""
    return visible(text, keep="")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
