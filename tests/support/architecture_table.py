"""The table of architectures in docs/formats.md: `python -m tests.support.architecture_table` writes it anew."""

from pathlib import Path
from typing import Final

from shared.checkpoints.architectures import ARCHITECTURES, Architecture

PAGE: Final = Path(__file__).parents[2] / "docs" / "formats.md"
BEGIN: Final = "<!-- table of architectures: python -m tests.support.architecture_table -->\n"
END: Final = "<!-- end of the table -->\n"


def rendered() -> str:
    """Return the table and, below it, the sentences that it refers to by number."""
    sentences: list[str] = []

    def no(reason: str) -> str:
        if reason not in sentences:
            sentences.append(reason)
        return f"no ({sentences.index(reason) + 1})"

    lines = [
        "| `general.architecture` | models | gates | divided by their sum | uniform | biased | statistics |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ARCHITECTURES.values():
        if row.no_surgery:
            cells = ["", "", no(row.no_surgery), "no", "no"]
        else:
            biased = no(row.no_bias) if row.bias is None else f"as `{row.substitute.name}`" if row.substitute else "yes"
            observed = no(row.no_statistics) if row.no_statistics else "yes"
            cells = [_gates(row), _normalised(row), "yes", biased, observed]
        lines.append(" | ".join([f"| `{row.name}`", row.models, *cells]) + " |")
    notes = [f"{number}. {sentence[0].upper()}{sentence[1:]}." for number, sentence in enumerate(sentences, start=1)]
    return "\n".join([*lines, "", *notes]) + "\n"


def _gates(row: Architecture) -> str:
    usual = row.gating.replace("_", " ") if row.gating else ""
    return f"the file says{f', else {usual}' if usual else ''}" if row.gating_in_file else usual


def _normalised(row: Architecture) -> str:
    return "the file says" if row.normalises is None else "yes" if row.normalises else "no"


def written() -> str:
    """Return the table as the page has it."""
    return PAGE.read_text().split(BEGIN)[1].split(END)[0]


if __name__ == "__main__":
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + rendered() + END + rest.split(END)[1])
