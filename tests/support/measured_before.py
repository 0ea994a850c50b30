"""The campaign that version 0.1.0 measured (`tests/data/measured_by_0_1_0`), unpacked into a folder of its own."""

import tarfile
from dataclasses import dataclass
from pathlib import Path

ARCHIVE = Path(__file__).parents[1] / "data" / "measured_by_0_1_0" / "measured_by_0_1_0.tar.gz"
CAMPAIGN = "demo-20261130-172641"
N_RUNS = 21


@dataclass(frozen=True)
class MeasuredBefore:
    """Where the parts lie: the result tree, the journal, and what that version said of the tree."""

    tree: Path
    journal: Path
    validated: Path
    calculated: Path


def unpack(folder: Path) -> MeasuredBefore:
    """Unpack the archive into `folder`."""
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(folder, filter="data")
    return MeasuredBefore(
        tree=folder / CAMPAIGN, journal=folder / "journal.sqlite", validated=folder / "validate.json",
        calculated=folder / "calc.json",
    )  # fmt: skip
