"""Names and reasons that strangers chose: shown as they are, obeyed by no terminal, browser or spreadsheet."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from orchestrator.cli.follow import _is_news, print_results
from orchestrator.cli.rendering import print_campaigns, print_status
from orchestrator.cli.results import app as results_app
from orchestrator.reports import markdown
from orchestrator.reports.report import write_report
from orchestrator.reports.summary import write_summary
from shared.bars import progress_bar
from shared.files.trace_csv import trace_lines
from shared.kernel.errors import DataError
from shared.kernel.visible import visible, visible_line
from shared.screen import Screen, say, say_json
from surgeon.cli.output import show
from tests.support.epi_campaign import write_campaign_tree

COMMANDS = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202etxt\r\x00\udcff"
MARKUP = "[/x] [red]no[/red] [link=https://x]y[/link] :warning:"
run = CliRunner()


def harmless(text: str) -> bool:
    return all(one.isprintable() or one in "\n\t" for one in text)


def test_what_nobody_sees_is_written_out() -> None:
    assert visible("a\tb\n\x1b[2J\u202e\udcff\x9b") == "a\tb\n\\x1b[2J\\u202e\\udcff\\x9b"
    assert visible_line("ok\nPASS: 0 failures") == "ok\\nPASS: 0 failures"
    assert visible("Größe 5 µs ± 1") == "Größe 5 µs ± 1"


def test_a_screen_shows_text_and_obeys_none(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name", title=MARKUP + COMMANDS)
    table.add_row(MARKUP + COMMANDS)
    screen = Screen(soft_wrap=True, width=400)
    screen.print(MARKUP + COMMANDS)
    screen.print(Text(MARKUP + COMMANDS))
    screen.print(table)
    with screen.status(MARKUP):
        pass
    say(MARKUP + COMMANDS)
    say_json({"name": COMMANDS})
    show(False, {}, MARKUP + COMMANDS)
    out = capsys.readouterr().out
    assert harmless(out) and out.count("[/x] [red]no[/red] [link=https://x]y[/link] :warning:") == 6
    assert out.count("\\x1b]0;owned\\x07") >= 5


def test_a_terminal_gets_our_style_and_no_other_command() -> None:
    screen = Screen(width=200)
    screen._force_terminal, screen._color_system, screen.file = True, None, io.StringIO()
    screen.print("error:" + COMMANDS, style="red")
    assert "\x1b]0" not in screen.file.getvalue() and "\\x1b]0;owned\\x07" in screen.file.getvalue()


def test_lists_bear_any_reason(capsys: pytest.CaptureFixture[str]) -> None:
    reason = MARKUP + COMMANDS + "\nPASS"
    print_campaigns([{"id": "x", "state": "failed", "runs_done": 0, "runs_total": 1, "reason": reason}])
    status: dict[str, Any] = {"id": "x", "state": "failed", "runs_done": 0, "readable": False, "reason": reason}
    print_status(status)
    entry = {"kind": "failure", "step": "x", "run": MARKUP, "payload": {"reason": reason}}
    assert not _is_news(entry, Screen())
    print_results([{
        "emulated": False, "configuration": {"id": "x"}, "repetitions": 1, "joules_per_token": 1.0, "epi": 1.0,
        "accuracy_composite": 0.5, "epi_ratio": None, "epi_ratio_low": None, "epi_ratio_high": None,
        "verdict": MARKUP, "reason": None, "validity": MARKUP,
    }])  # fmt: skip
    with progress_bar(MARKUP) as publish:
        publish(0.5, reason)
    out = capsys.readouterr().out
    assert harmless(out) and "[/x]" in out
    assert "why:   " + visible_line(reason) in out


def test_validate_prints_one_line_a_defect_whatever_a_folder_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "x\x1b[2J[red]\nPASS"
    folder.mkdir()
    (folder / "run_001.json").write_text("{}")
    result = run.invoke(results_app, ["validate", str(tmp_path)])
    assert result.exit_code == 1 and harmless(result.output)
    assert all(line.startswith(("FAIL", "FLAG")) for line in result.output.splitlines()), result.output


def test_markdown_holds_no_markup_of_a_stranger() -> None:
    assert markdown.text("<img src=x onerror=alert(1)>") == "&lt;img src=x onerror=alert(1)>"
    assert markdown.text("![p](http://x/p) \\](y)") == "![p\\](http://x/p) \\\\\\](y)"
    assert markdown.text("**emulated <b>**") == "**emulated &lt;b>**"
    assert markdown.text("a\n# b") == "a\\\\n# b"
    assert markdown.cell("a | b") == "a \\| b"
    assert markdown.code("`x` <b>") == "`'x' <b>`"
    assert markdown.text("EPI 0.95 [0.90, 1.00]") == "EPI 0.95 [0.90, 1.00]"


SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)> [a](javascript:alert(1)) $\\frac$ | \u202e\x1b[2J"


def test_reports_of_a_stranger_hold_no_markup_of_his(tmp_path: Path) -> None:
    tree = write_campaign_tree(tmp_path, "drop2_all", repetitions=1, per_task=10)
    path = tree / "campaign.json"
    document = json.loads(path.read_text())
    words = dict.fromkeys(("title", "model", "hardware"), SCRIPT)
    document |= words | {"failures": {"drop8_all": SCRIPT}}
    document["instrument"] |= {"name": SCRIPT, "measurement_point": SCRIPT}
    document["protocol"]["accuracy_note"] = SCRIPT
    path.write_text(json.dumps(document))
    for name in ("baseline", "drop2_all"):
        own = tree / name / "run_001.json"
        changed = json.loads(own.read_text())
        changed["instrument"] |= {"firmware": SCRIPT + "`"}
        own.write_text(json.dumps(changed))
    write_summary(tree)
    write_report(tree)
    for name in ("summary.md", "report.md"):
        text = (tree / name).read_text()
        outside_code = "".join(text.split("`")[::2])
        assert harmless(text) and "<script" not in outside_code and "<img" not in outside_code, name
        assert "](javascript" not in outside_code.replace("\\](", ""), name
        assert len([line for line in text.splitlines() if line.startswith("# ")]) == 1
    page = (tree / "report.html").read_text()
    assert "<script" not in page and "<img" not in page and "\x1b" not in page and "\u202e" not in page
    assert page.count("<svg") == page.count("<figure")


def test_a_trace_holds_no_formula() -> None:
    with pytest.raises(DataError, match="not a node name"):
        trace_lines([1], {"=cmd|'/c calc'!A0": [1.0]})
