"""The README: its pictures are there, small and really pictures; what it names exists."""

import re
import struct
from pathlib import Path

import pytest

from docs.pictures import LARGEST_BYTES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README))
def test_pictures_are_small_pngs_that_say_that_the_power_is_emulated(name: str) -> None:
    data = (ROOT / name).read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) <= LARGEST_BYTES
    width, height = struct.unpack(">II", data[16:24])
    assert 1000 <= width <= 2000 and 500 <= height <= 1200
    alternative = re.search(rf"!\[([^\]]*)\]\({re.escape(name)}\)", README)
    assert alternative is not None and "emulated" in alternative[1]


def test_links_lead_somewhere() -> None:
    for name in re.findall(r"(?<!!)\[[^\]]*\]\(([^)#:]+)\)", README):
        assert (ROOT / name).exists(), name


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^    |`)make ([a-z0-9-]+)", README, re.MULTILINE)) <= targets
