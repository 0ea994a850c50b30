"""Print the model card's tables from the figures of `evaluate`.

Run it with `python -m demo.recipe.card --figures build/demo/evaluation.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from demo.recipe.scoring import STYLES

Figures = dict[str, Any]


def percent(figure: Figures) -> str:
    """Return "97.0 % (94.2 to 98.5)" of an accuracy with its interval."""
    accuracy, low, high = (100 * figure[key] for key in ("accuracy", "low", "high"))
    return f"{accuracy:.1f} % ({low:.1f} to {high:.1f})"


def accuracy_table(whole: Figures) -> list[str]:
    """Return accuracy by style and phrasing."""
    lines = ["| task | measure | n | accuracy (95 % interval) |", "| --- | --- | ---: | --- |"]
    for style, shots in STYLES.items():
        measures = (
            ("acc", "acc, all"),
            ("acc_norm", "acc_norm, all"),
            ("seen", "acc, seen"),
            ("held_out", "acc, held out"),
        )
        for key, name in measures:
            figure = whole[style][key]
            lines.append(f"| demo_{style}_{shots}shot | {name} | {figure['n']} | {percent(figure)} |")
    return lines


def subject_table(whole: Figures) -> list[str]:
    """Return accuracy by subject, the two fact styles side by side."""
    lines = ["| subject | n | MMLU style | ARC style |", "| --- | ---: | ---: | ---: |"]
    for key in (key for key in whole["mmlu_style"] if key.startswith("subject ")):
        mmlu, arc = whole["mmlu_style"][key], whole["arc_style"][key]
        name = key.removeprefix("subject ")
        lines.append(f"| {name} | {mmlu['n']} | {100 * mmlu['accuracy']:.0f} % | {100 * arc['accuracy']:.0f} % |")
    return lines


def drop_table(report: Figures) -> list[str]:
    """Return accuracy and perplexity by number of dropped experts."""
    lines = [
        "| experts dropped per layer | left | MMLU style | ARC style | HellaSwag style | held-out perplexity |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for key in (key for key in report if key.startswith("drop ")):
        drop, figures = int(key.removeprefix("drop ")), report[key]
        scores = " | ".join(f"{100 * figures[style]['acc']['accuracy']:.1f} %" for style in STYLES)
        lines.append(f"| {drop} | {16 - drop} | {scores} | {figures['perplexity']:.2f} |")
    return lines


def usage_table(report: Figures) -> list[str]:
    """Return each layer's expert shares, largest first, and how many experts a domain leaves nearly idle."""
    lines = ["| layer | share of expert calls in percent, largest first |", "| ---: | --- |"]
    for layer, shares in enumerate(report["usage_all"]):
        text = " ".join(f"{100 * value:.1f}" for value in sorted(shares, reverse=True))
        lines.append(f"| {layer} | {text} |")
    lines += ["", "| domain | experts below 2 % of the calls, by layer |", "| --- | --- |"]
    for name, layers in report["usage"].items():
        idle = ", ".join(str(sum(value < 0.02 for value in shares)) for shares in layers)
        lines.append(f"| {name} | {idle} |")
    return lines


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", type=Path, default=Path("build/demo/evaluation.json"))
    report = json.loads(parser.parse_args().figures.read_text(encoding="utf-8"))
    whole = report["drop 0"]
    tables = (accuracy_table(whole), subject_table(whole), drop_table(report), usage_table(report))
    print("\n\n".join("\n".join(table) for table in tables))


if __name__ == "__main__":
    main()
