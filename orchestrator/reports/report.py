"""`report.html` (one self-contained file), `report.md` and `figures/`: deterministic for the same result files."""

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from orchestrator.reports import markdown
from orchestrator.reports.answers_table import answers_table
from orchestrator.reports.figures import KINDS, Drawing, render
from orchestrator.reports.figures_more import campaign_drawings
from orchestrator.reports.hypotheses import hypotheses
from orchestrator.reports.memory_tables import boards_table, iso_memory_table, memory_table
from orchestrator.reports.provenance import builds_table, engines_table, question_rows
from orchestrator.reports.research_questions import answers_of, recommendation_of
from orchestrator.reports.summary import opening
from orchestrator.reports.tables import (
    Table,
    accuracy_table,
    budget_table,
    conditions_table,
    deliveries_table,
    energy_table,
    methods_table,
    results_table,
    servings_table,
)
from orchestrator.reports.validity import validity_lines
from orchestrator.results.files import refuse_outside
from orchestrator.results.read_model import CampaignResults, load_results
from shared.files.atomic import write_files
from shared.kernel.visible import visible


@dataclass(frozen=True)
class _InlineFigure:
    name: str
    caption: str
    svg: str


def write_report(campaign_dir: Path) -> tuple[Path, ...]:
    """Write the report and all figures of a campaign into its own folder.

    Raises:
        DataError: a result file is missing or damaged.
    """
    data = load_results(campaign_dir)
    drawings = campaign_drawings(data)
    texts = {"report.html": report_html(data, drawings), "report.md": report_markdown(data, drawings)}
    pages = {campaign_dir / name: text.encode() for name, text in texts.items()}
    return (*write_figures(campaign_dir, drawings), *write_files(pages))


def write_figures(campaign_dir: Path, drawings: tuple[Drawing, ...]) -> tuple[Path, ...]:
    """Write every figure as SVG, PDF and PNG with its caption beside it as text.

    Raises:
        DataError: `figures` is a link that leads out of the campaign's folder.
    """
    folder = campaign_dir / "figures"
    refuse_outside(campaign_dir, folder)
    contents: dict[Path, bytes] = {}
    for drawing in drawings:
        for kind in KINDS:
            contents[folder / f"{drawing.name}.{kind}"] = render(drawing.figure, kind)
        contents[folder / f"{drawing.name}.txt"] = f"{drawing.caption}\n".encode()
    return write_files(contents)


def report_html(data: CampaignResults, drawings: tuple[Drawing, ...]) -> str:
    """Return the report as one HTML page without any outside reference."""
    source = files("orchestrator.reports").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, finalize=_shown)
    template = page.from_string(source)
    return template.render(
        title=data.campaign.title or data.campaign.campaign_id,
        opening=opening(data),
        recommendation=recommendation_of(data).sentence,
        tables=_tables(data),
        figures=[_InlineFigure(item.name, item.caption, _inline(item)) for item in drawings],
        hypotheses=hypotheses(data.hypotheses),
        questions=answers_of(data),
        validity=validity_lines(data),
        failures=sorted(data.campaign.failures.items()),
        provenance=_provenance(data),
    )


def _shown(value: object) -> object:
    """Return plain text with what nobody sees written out; what is markup, the figures, as it is."""
    return visible(value) if type(value) is str else value


def report_markdown(data: CampaignResults, drawings: tuple[Drawing, ...]) -> str:
    """Return the report as Markdown; its figures are the SVG files in `figures/`."""
    lines = [f"# {markdown.text(data.campaign.title or data.campaign.campaign_id)}", ""]
    for sentence in (*opening(data), f"**{recommendation_of(data).sentence}**"):
        lines += [markdown.text(sentence), ""]
    for table in _tables(data):
        lines += [f"## {table.title}", "", markdown.text(table.note), "", *table.markdown(), ""]
    lines += ["## Figures", ""]
    for number, item in enumerate(drawings, start=1):
        lines += [f"![{item.name}](figures/{item.name}.svg)", "", f"Figure {number}. {markdown.text(item.caption)}", ""]
    lines += ["## Hypotheses", ""]
    for h in hypotheses(data.hypotheses):
        lines.append(f"- **{h.name}** {h.claim}: **{h.answer}**. {markdown.text(h.sentence)}")
    lines += ["", "## Research questions", ""]
    lines += [f"- **{q.name} {q.question}** {markdown.text(q.answer)}" for q in answers_of(data)]
    lines += ["", "## Validity", "", *map(markdown.text, validity_lines(data))]
    if data.campaign.failures:
        failures = sorted(data.campaign.failures.items())
        lines += ["", "## Missing", "", *(markdown.text(f"- {name}: {reason}") for name, reason in failures)]
    lines += ["", "## Provenance", "", *(f"- {name}: {markdown.code(value)}" for name, value in _provenance(data))]
    return "\n".join(lines) + "\n"


def _tables(data: CampaignResults) -> list[Table]:
    tables = (
        results_table(data), methods_table(data), servings_table(data),
        accuracy_table(data), answers_table(data), energy_table(data), budget_table(data),
        memory_table(data), boards_table(data), iso_memory_table(data),
        conditions_table(data), deliveries_table(data), builds_table(data), engines_table(data),
    )  # fmt: skip
    return [table for table in tables if table is not None]


def _inline(drawing: Drawing) -> str:
    """Return the SVG element alone, its ids made unique to the figure so that pages with several do not mix them."""
    text = render(drawing.figure, "svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="([^"]+)"', rf'id="{drawing.name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{drawing.name}-\1)", text)
    return re.sub(r'href="#([^"]+)"', rf'href="#{drawing.name}-\1"', text)


def _provenance(data: CampaignResults) -> list[tuple[str, str]]:
    first = next((group[0] for group in data.inputs.values()), None)
    rows = [("campaign", data.campaign.campaign_id)]
    if data.campaign.spec_sha256:
        rows.append(("spec_sha256", data.campaign.spec_sha256))
    if first is not None:
        in_words = {"task_names", "question_sets", "software", "engines"}
        of_one_run = {"windows", "plan_sha256", "model_sha256", "output_sha256"}
        shared = first.provenance.model_dump(exclude=of_one_run | in_words)
        rows += [(name, str(value)) for name, value in shared.items() if value is not None]
        rows += [("tasks", ", ".join(first.provenance.task_names))] if first.provenance.task_names else []
        rows += question_rows(run for group in data.inputs.values() for run in group)
        rows.append(("firmware", first.instrument.firmware or "unknown"))
        rows.append(("calibration", first.instrument.calibration_id or "none"))
    return rows
