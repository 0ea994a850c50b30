"""Every command, setting and endpoint is documented, and the site builds without a warning."""

import subprocess
import sys
from pathlib import Path

import pytest

from docs.reference import SETTINGS, commands, descriptions, models_of, parameters, settings_page

ROOT = Path(__file__).parents[2]


def test_every_command_says_what_it_does() -> None:
    found = dict(commands())
    assert "epi campaign start" in found and "epi results calc" in found and len(found) > 40
    assert [name for name, command in found.items() if not (command.help or "").strip()] == []
    assert [f"{name} {one}" for name, command in found.items() for one, told in parameters(command) if not told] == []


def test_every_setting_says_what_it_means() -> None:
    seen = list(SETTINGS.values())
    for one in seen:
        seen += [
            inner for field in one.model_fields.values() for inner in models_of(field.annotation) if inner not in seen
        ]
    silent = [
        f"{one.__name__}.{name}"
        for one in seen
        for name, field in one.model_fields.items()
        if not field.description and name != "kind"  # what a record is, its docstring says
    ]
    assert silent == []
    assert all(one.__doc__ for one in seen)
    page = settings_page()
    assert "| `results_dir` | required |" in page and "gap_before_window_s" in page


def test_every_endpoint_says_what_it_does() -> None:
    found = descriptions()
    assert set(found) == {"orchestrator", "node agent", "surgeon", "meter bridge"}
    endpoints = {
        f"{name}: {method} {path}": operation.get("description")
        for name, description in found.items()
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }
    assert len(endpoints) > 40
    assert [endpoint for endpoint, told in endpoints.items() if not told] == []


def test_every_decision_has_a_status_a_date_and_a_place_on_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for path in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        assert path.read_text().splitlines()[2].startswith("Status: "), path.name
        assert f"decisions/{path.name}" in navigation


@pytest.mark.timeout(180)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        assert 'src="http' not in text and '<link rel="stylesheet" href="http' not in text, page
