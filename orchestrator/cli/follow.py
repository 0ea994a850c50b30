"""Following a campaign in a terminal until it ends, and the table that it ends with."""

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

from rich.table import Table

from orchestrator.cli.api import Api
from shared.bars import progress_bar
from shared.kernel.errors import InfrastructureError
from shared.kernel.progress import Progress
from shared.screen import Screen

_GIVE_UP_S = 60.0
_ENDED = ("finished", "failed", "cancelled", "paused")


def follow(api: Api, campaign: str, console: Screen) -> dict[str, Any]:
    """Show a campaign's progress until it ends, through restarts of the orchestrator; return its last status.

    Raises:
        InfrastructureError: the orchestrator stayed away for a minute.
    """
    lost_since: float | None = None
    share = 0.0
    with progress_bar(campaign, console) as publish:
        while True:
            try:
                status: dict[str, Any] = api.call("GET", f"/v1/campaigns/{campaign}")
                lost_since = None
                done, total = status["runs_done"], status["runs_total"]
                share = done / max(total, 1)
                publish(share, f"{done} of {total} runs")
                if status["state"] in _ENDED:
                    return status
                _watch(api, campaign, partial(_tell, publish, share, f"{done} of {total} runs"), console)
            except InfrastructureError:
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > _GIVE_UP_S:
                    raise
                publish(share, "waiting for the orchestrator")
                time.sleep(0.5)


def _tell(publish: Progress, share: float, runs: str, doing: str) -> None:
    publish(share, f"{runs}, {doing}")


def _watch(api: Api, campaign: str, say: Callable[[str], None], console: Screen) -> None:
    """Follow the live feed until a run or the campaign ends."""
    # Closed here and not by the garbage collector, which would swallow a Ctrl-C that comes while it closes.
    with closing(api.live()) as feed:
        for message in feed:
            if (now := message.get("progress")) is not None and now["campaign"] == campaign:
                eta = "" if now.get("eta_s") is None else f", {now['eta_s'] / 60:.1f} min left"
                say(f"{now['run'] or 'setup'}: {now['step']}{eta}")
            entry = message.get("entry")
            if entry is not None and entry["campaign"] == campaign and _is_news(entry, console):
                return


def _is_news(entry: dict[str, Any], console: Screen) -> bool:
    """Print what a journal entry is worth; True when a run or the campaign has ended."""
    payload = entry["payload"]
    if entry["kind"] == "result" and entry["step"] == "evaluate":
        if not console.is_terminal:
            console.print(f"{entry['run']}: {_figures(payload)}")
        return True
    if entry["kind"] == "failure" or (entry["kind"] == "attempt" and payload.get("state") == "failed"):
        reason = payload.get("reason") or payload.get("message")
        console.print(f"{entry['run'] or 'setup'}:", style="yellow", end=" ")
        console.print(str(reason))
    return entry["kind"] == "state" and payload.get("state") in _ENDED


def _figures(payload: dict[str, Any]) -> str:
    epi = payload.get("epi")
    return "no EPI: " + payload.get("reason", "") if epi is None else f"EPI {epi:.4g} J/(token*accuracy)"


def results_table(results: list[dict[str, Any]]) -> Table:
    """Return the campaign's table; ratios are to the baseline of the same layout."""
    emulated = any(result["emulated"] for result in results)
    table = Table(
        title="EPI by configuration" + (" (power EMULATED, not measured)" if emulated else ""),
        caption="EPI in J per generated token per unit of accuracy; lower is better. Ratio: to the layout's baseline.",
    )
    for name in ("configuration", "n", "J/token", "accuracy", "EPI", "ratio", "verdict", "validity"):
        table.add_column(name, justify="left" if name in ("configuration", "verdict", "validity") else "right")
    for result in results:
        table.add_row(
            result["configuration"]["id"], str(result["repetitions"]), _number(result["joules_per_token"]),
            _number(result["accuracy_composite"], ".3f"), _number(result["epi"]), _ratio(result),
            result["verdict"] or result["reason"] or "", result["validity"] or "",
        )  # fmt: skip
    return table


def print_results(results: list[dict[str, Any]]) -> None:
    """Print the table; into a file or pipe it is as wide as it needs to be."""
    console = Screen(soft_wrap=True)
    if not console.is_terminal:
        console = Screen(soft_wrap=True, width=160)
    console.print(results_table(results))


def _ratio(result: dict[str, Any]) -> str:
    ratio = _number(result["epi_ratio"], ".3f")
    if result["epi_ratio_low"] is None or result["epi_ratio_high"] is None:
        return ratio
    return f"{ratio} [{result['epi_ratio_low']:.3f}, {result['epi_ratio_high']:.3f}]"


def _number(value: float | None, form: str = ".4g") -> str:
    return "-" if value is None else format(value, form)
