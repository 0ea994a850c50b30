"""What must not depend on who was killed when: answers and hashes equal, one result a run, every attempt explained."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestrator.local.layout import LocalLab
from orchestrator.results.recompute import recompute_campaign
from tests.support.lab import wait_for_end

HEADLINE = "decode"


def answers(lab: LocalLab, campaign: str, configurations: Sequence[str], repetition: int = 1) -> dict[str, list[Any]]:
    """Return configuration -> (question, choice, log-likelihoods) of a repetition."""
    found = {}
    for name in configurations:
        text = (lab.out / campaign / name / f"benchmark_{repetition:03d}.json").read_text()
        found[name] = [(q["question_id"], q["choice"], q["log_likelihoods"]) for q in json.loads(text)["questions"]]
    return found


def outcome_of(lab: LocalLab, campaign: str, configurations: Sequence[str]) -> dict[str, Any]:
    """Return all that an undisturbed and a disturbed campaign must have in common: everything but time and joules."""
    found: dict[str, Any] = {"answers": answers(lab, campaign, configurations)}
    for name in configurations:
        epi = json.loads((lab.out / campaign / name / "epi_001.json").read_text())
        found[name] = {
            "accuracy": epi["accuracy"],
            "ledgers": {label: phase["ledger"] for label, phase in epi["evaluation"]["phases"].items()},
            **{key: epi["provenance"][key] for key in ("plan_sha256", "model_sha256", "base_sha256", "output_sha256")},
        }
    return found


def entries_of(lab: LocalLab, campaign: str) -> list[sqlite3.Row]:
    """Return the whole journal of a campaign, read beside the orchestrator."""
    path = lab.home / "state/orchestrator/journal.sqlite"
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        db.row_factory = sqlite3.Row
        return db.execute("SELECT * FROM entry WHERE campaign = ? ORDER BY seq", (campaign,)).fetchall()
    finally:
        db.close()


def check_end(lab: LocalLab, campaign: str, timeout_s: float, *, late_answers: bool = False) -> dict[str, Any]:
    """Wait for the end; nothing was done twice, every attempt is explained, joules come from complete windows."""
    status = wait_for_end(lab, campaign, timeout_s)
    assert status["state"] == "finished", status["reason"]
    for run in status["runs"]:
        outcomes = [attempt["outcome"] for attempt in run["attempts"]]
        assert outcomes.count("done") == 1 and outcomes[-1] == "done", run
        assert all(attempt["reason"] for attempt in run["attempts"][:-1]), run
    once = [row for row in entries_of(lab, campaign) if row["kind"] == "result" and not row["attempt"]]
    results = Counter((row["run"], row["step"]) for row in once)
    most = {key: 2 if late_answers and key[1] == "evaluate" else 1 for key in results}  # anew when answers came
    assert all(1 <= count <= most[key] for key, count in results.items()), results
    _check_windows(lab, campaign, status)
    return status


def _check_windows(lab: LocalLab, campaign: str, status: dict[str, Any]) -> None:
    for run in status["runs"]:
        done = run["attempts"][-1]
        folder, number = lab.out / campaign / run["configuration"], f"{run['repetition']:03d}"
        record = json.loads((folder / f"run_{number}.json").read_text())
        assert record["attempt"] == done["number"], run
        for window in record["windows"]:
            assert done["started_utc_ns"] <= window["start_utc_ns"] < window["end_utc_ns"] <= done["ended_utc_ns"], run
        for window in json.loads((folder / f"epi_{number}.json").read_text())["evaluation"]["windows"]:
            assert (window["total_joules"] is None) == bool(window["reason"]), window
            if window["label"] == HEADLINE:
                assert window["total_joules"] > 0, window
    for run in recompute_campaign(lab.out / campaign):
        assert run.differences == (), run
