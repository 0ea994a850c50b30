"""Campaign specs: the shipped examples, frozen hashes, errors that name the key; the commands that need no lab."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.campaign.demo_spec import demo_spec
from orchestrator.campaign.spec_file import load_spec
from orchestrator.campaign.spec_library import EXAMPLES
from orchestrator.domain.analysis.utilisation import utilisation
from orchestrator.domain.campaign.dry_run import Pace, spec_plan
from orchestrator.domain.campaign.rates import Rates
from orchestrator.domain.campaign.schedule import configurations_of, runs_total, schedule
from shared.kernel.errors import ConfigurationError

DEMO = Path(__file__).parents[2] / "demo" / "demo.toml"
EPI = [sys.executable, "-m", "shared.cli", "campaign"]


def test_the_paper_is_25_configurations_and_a_control_three_times() -> None:
    spec = load_spec(EXAMPLES / "paper.toml")
    names = [one.id for one in configurations_of(spec)]
    assert names[:3] == ["baseline", "baseline_biased", "drop1_all"] and names[-1] == "drop8_late"
    assert (len(names), runs_total(spec)) == (26, 78)


def test_every_example_is_valid_and_lab_sized() -> None:
    for path in EXAMPLES.glob("*.toml"):
        spec = load_spec(path)
        assert spec.windows.idle_s >= 60 and not spec.rules.shortened, path


def test_repetitions_are_interleaved_back_and_forth() -> None:
    spec = demo_spec(DEMO, campaign_id="x", configurations="baseline,drop1_all", repetitions=3, questions=None)
    assert [str(run.run) for run in schedule(spec)] == [
        "baseline/rep-1", "drop1_all/rep-1", "drop1_all/rep-2", "baseline/rep-2", "baseline/rep-3", "drop1_all/rep-3",
    ]  # fmt: skip


def test_the_hash_changes_with_any_field() -> None:
    one = load_spec(EXAMPLES / "paper.toml")
    assert one.spec_hash() == load_spec(EXAMPLES / "paper.toml").spec_hash()
    assert one.spec_hash() != load_spec(EXAMPLES / "paper.toml", repetitions=4).spec_hash()


@pytest.mark.parametrize(
    ("text", "names"),
    [("id = ", "not valid TOML"), ('id = "x"', "model"), ('id = "X y"', "id"), ("surprise = 1", "id")],
)
def test_a_bad_spec_names_file_and_key(tmp_path: Path, text: str, names: str) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_spec(path)
    assert caught.value.where == str(path) and names in caught.value.message


def test_utilisation_counts_windows_and_settling() -> None:
    s = 10**9
    found = utilisation([("a", [(0, 10 * s), (11 * s, 20 * s)]), ("b", [(25 * s, 30 * s)])], gap_before_window_s=1.0)
    assert found is not None
    assert found.share == pytest.approx((10 + 1 + 9 + 1 + 5) / 30)
    assert found.longest_pause_s == pytest.approx(4.0)
    assert found.longest_pause_before == "b"


def test_new_then_validate(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    subprocess.run([*EPI, "new", "paper", str(path)], check=True, capture_output=True, timeout=60)
    done = subprocess.run([*EPI, "validate", str(path)], check=True, capture_output=True, text=True, timeout=60)
    assert "26 configurations x 3, 78 runs" in done.stdout
    again = subprocess.run([*EPI, "new", "paper", str(path)], capture_output=True, text=True, timeout=60)
    assert again.returncode == 1 and str(path) in again.stderr


def test_a_spec_can_be_json(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    subprocess.run([*EPI, "new", "paper", str(path)], check=True, capture_output=True, timeout=60)
    assert load_spec(path) == load_spec(EXAMPLES / "paper.toml")


def test_a_plan_says_order_waiting_and_power_without_rates_and_costs_with_them() -> None:
    spec = load_spec(EXAMPLES / "paper.toml")
    bare = spec_plan(spec)
    assert bare.order == tuple(str(run.run) for run in schedule(spec)) and bare.plan is None
    assert bare.waiting_seconds == pytest.approx(78 * (60 + 5 * 10 + 60 + 3 * (5 + 5) + 5))
    assert bare.resolution is not None and 0 < bare.resolution.smallest_effect < 0.1
    rates = Rates(
        seconds_per_question=dict.fromkeys(spec.intelligence.weights, 2.0), fixed_seconds=1e9, idle_watts=12,
        active_watts=40,
        base_bytes=18 * 10**9,
    )  # fmt: skip
    pace = Pace(prefill_tokens_per_s=20.0, decode_tokens_per_s=14.0, between_s=150.0)
    full = spec_plan(spec, rates=rates, pace=pace, rates_from="pilot")
    assert full.plan is not None and full.rates_from == "pilot"
    windows_s = 300 + 145 + 150 + 8 * 4 * 512 / 20 + 8 * 4 * 256 / 14
    assert full.plan.windows_seconds == pytest.approx(78 * windows_s), "with the longest wait for the steady state"
    assert full.plan.cluster_questions_seconds == 26 * 3 * 100 * 2, "scorers answer all, the cluster its sample once"
    assert full.literal_duration_seconds == pytest.approx(78 * (windows_s + 2 * sum(full.questions.values())))
    waited = spec_plan(spec, rates=rates, pace=pace.model_copy(update={"steady_s": 80.0})).plan
    assert waited is not None and waited.windows_seconds == pytest.approx(78 * (windows_s - 220))
    assert full.plan.disk_bytes_node == 2 * rates.base_bytes


def test_the_paper_takes_days_where_the_literal_protocol_takes_months() -> None:
    plan = [*EPI, "plan", str(EXAMPLES / "paper.toml"), "--rates", "four-pi5", "--json"]
    planned = json.loads(subprocess.run(plan, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert planned["where"] == "scorers" and sum(planned["questions"].values()) == 25_256
    assert planned["duration_seconds"] <= 3 * 86_400
    assert planned["literal_duration_seconds"] == pytest.approx(155 * 86_400, rel=0.05)
    made = planned["plan"]
    assert made["rates_label"] == "published" and planned["rates_from"].startswith("published:")
    assert made["windows_seconds"] + made["cluster_questions_seconds"] == pytest.approx(planned["duration_seconds"])
    assert made["energy_joules"] == pytest.approx(48 * planned["duration_seconds"])
    effects = [day["smallest_effect"] for day in made["further"]]
    assert effects == sorted(effects, reverse=True) and effects[0] < planned["resolution"]["smallest_effect"]
    assert any("no rates of llama.cpp" in warning for warning in made["warnings"])
    assert len(planned["rates_sources"]) == 5


def test_rates_of_an_unknown_name_are_refused(tmp_path: Path) -> None:
    plan = [*EPI, "plan", str(EXAMPLES / "paper.toml"), "--rates"]
    unknown = subprocess.run([*plan, "five-pi6"], capture_output=True, text=True, timeout=60)
    assert unknown.returncode != 0 and "four-pi5" in unknown.stderr
    own = tmp_path / "own.toml"
    own.write_text("""
        description = "mine"
        sources = ["my bench"]
        nodes = 1
        idle_watts = 3.5
        active_watts = 12
        loading_seconds = 60
        engines = { "llama.cpp" = { prefill_tokens_per_s = 10.9, decode_tokens_per_s = 8.0 } }
        tasks.mmlu_5shot = { questions = 14042, tokens_per_question = 106, prefixes = 57, tokens_per_prefix = 392 }
    """)
    lacking = subprocess.run([*plan, str(own)], capture_output=True, text=True, timeout=60)
    assert lacking.returncode != 0 and "nothing of arc_challenge_25shot, hellaswag_10shot" in lacking.stderr
