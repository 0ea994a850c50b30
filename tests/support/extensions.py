"""Distributions of other people for tests: one module and its entry points, as pip would leave them in a folder."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tool:
    """Something that a registry can hold."""

    name: str


def install(folder: Path, name: str, code: str, points: dict[str, dict[str, str]]) -> None:
    """Put the module `name` into `folder` with its .dist-info; `points` is group -> name -> value."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, values in points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in values.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
