"""`epi meter prune` and `epi meter compact`: retention and compaction, done by the bridge itself."""

from typing import Annotated

import typer

from meter_bridge.cli.remote import DEFAULT_URL, AsJson, CaFile, Remote, TokenFile, Url, bridge_at, with_bridge
from meter_bridge.trace.maintenance import MaintenanceRequest, MaintenanceResult
from shared.screen import say, say_json
from shared.service.endpoint import Endpoint

_MIB = 1 << 20


def prune(
    keep_days: Annotated[float, typer.Option(help="delete samples older than this", min=0.01)],
    url: Url = DEFAULT_URL, token_file: TokenFile = None, ca_file: CaFile = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Delete old samples and events, and give the space back."""
    _run(bridge_at(url, token_file, ca_file), MaintenanceRequest(keep_days=keep_days), as_json=as_json)


def compact(
    older_than_days: Annotated[float, typer.Option(help="slim samples older than this", min=0.01)],
    url: Url = DEFAULT_URL, token_file: TokenFile = None, ca_file: CaFile = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Keep only raw power of old samples: V, A, PF, VAR and frequency go."""
    _run(bridge_at(url, token_file, ca_file), MaintenanceRequest(compact_days=older_than_days), as_json=as_json)


def _run(at: Endpoint, request: MaintenanceRequest, *, as_json: bool) -> None:
    async def ask(bridge: Remote) -> MaintenanceResult:
        body = request.model_dump(exclude_none=True)
        return await bridge.client.request_as(MaintenanceResult, "POST", "/v1/maintenance", json=body)

    done = with_bridge(at, ask)
    if as_json:
        say_json(done.model_dump(mode="json"), indent=2)
        return
    say(
        f"{done.deleted_samples} samples and {done.deleted_events} events deleted, {done.compacted_samples} slimmed;"
        f" {done.bytes_before / _MIB:.1f} -> {done.bytes_after / _MIB:.1f} MiB"
    )
