"""`epi meter prune` and `epi meter compact`: retention and compaction, done by the bridge itself."""

from pathlib import Path
from typing import Annotated

import typer

from meter_bridge.cli.remote import DEFAULT_URL, AsJson, Remote, TokenFile, Url, with_bridge
from meter_bridge.trace.maintenance import MaintenanceRequest, MaintenanceResult
from shared.screen import say, say_json

_MIB = 1 << 20


def prune(
    keep_days: Annotated[float, typer.Option(help="delete samples older than this", min=0.01)],
    url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Delete old samples and events, and give the space back."""
    _run(url, token_file, MaintenanceRequest(keep_days=keep_days), as_json=as_json)


def compact(
    older_than_days: Annotated[float, typer.Option(help="slim samples older than this", min=0.01)],
    url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Keep only raw power of old samples: V, A, PF, VAR and frequency go."""
    _run(url, token_file, MaintenanceRequest(compact_days=older_than_days), as_json=as_json)


def _run(url: str, token_file: Path | None, request: MaintenanceRequest, *, as_json: bool) -> None:
    async def ask(bridge: Remote) -> MaintenanceResult:
        body = request.model_dump(exclude_none=True)
        return await bridge.client.request_as(MaintenanceResult, "POST", "/v1/maintenance", json=body)

    done = with_bridge(url, token_file, ask)
    if as_json:
        say_json(done.model_dump(mode="json"), indent=2)
        return
    say(
        f"{done.deleted_samples} samples and {done.deleted_events} events deleted, {done.compacted_samples} slimmed;"
        f" {done.bytes_before / _MIB:.1f} -> {done.bytes_after / _MIB:.1f} MiB"
    )
