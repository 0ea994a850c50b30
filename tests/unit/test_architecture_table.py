"""The table of architectures that docs/formats.md shows is the one that the code goes by."""

from tests.support.architecture_table import rendered, written


def test_the_page_shows_the_table() -> None:
    assert written() == rendered(), "write it anew: python -m tests.support.architecture_table"
