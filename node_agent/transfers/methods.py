"""How an artifact reaches this node: which methods are possible, what each is expected to cost, and doing the cheapest.

By plan costs the plan's own bytes and needs the base here; HTTP costs what is missing of the file and resumes; rsync
needs a configured source and costs at most the file, less by an unknown part when the base is here as its basis.
Every method ends with the hash being checked.
"""

import asyncio
import logging
import shutil
import time
from dataclasses import dataclass

from node_agent.settings import NodeSettings
from node_agent.transfers.rsync import rsync
from shared.checkpoints.surgery import apply_plan
from shared.files.artifacts import ArtifactStore, NoRoomError, scratch_file
from shared.files.integrity import DamagedArtifactError
from shared.kernel.errors import ConfigurationError, DataError, EpiError
from shared.kernel.progress import counted, throttled
from shared.kernel.records import canonical_json
from shared.service.auth import load_token
from shared.service.endpoint import Endpoint
from shared.wire.job_server import JobContext
from shared.wire.node_jobs.artifacts import FetchParams, FetchResult, TransferCost, TransferFailure, TransferMethod

log = logging.getLogger(__name__)


def costs(params: FetchParams, store: ArtifactStore, settings: NodeSettings) -> tuple[TransferCost, ...]:
    """Return what each method would cost here and now, cheapest first, impossible ones last.

    Rsync is put at the file's size, its upper bound; `prefer_rsync` puts it before HTTP.
    """
    base_here = params.base_sha256 is not None and store.has(params.base_sha256)
    partial = store.partial_path(params.sha256)
    missing = max(params.size_bytes - (partial.stat().st_size if partial.exists() else 0), 0)
    found: dict[TransferMethod, TransferCost] = {}
    if store.has(params.sha256):
        found["here"] = TransferCost(method="here", expected_bytes=0)
    else:
        found["here"] = TransferCost(method="here", reason="it is not here")
    if params.plan is None:
        found["plan"] = TransferCost(method="plan", reason="no plan was given")
    elif not base_here:
        found["plan"] = TransferCost(method="plan", reason="the base model is not here")
    else:
        found["plan"] = TransferCost(method="plan", expected_bytes=len(canonical_json(params.plan)))
    if settings.source_url is None:
        found["http"] = TransferCost(method="http", reason="no source_url is set")
    else:
        found["http"] = TransferCost(method="http", expected_bytes=missing)
    if settings.rsync_source is None:
        found["rsync"] = TransferCost(method="rsync", reason="no rsync_source is set")
    elif shutil.which("rsync") is None:
        found["rsync"] = TransferCost(method="rsync", reason="rsync is not installed")
    else:
        found["rsync"] = TransferCost(method="rsync", expected_bytes=params.size_bytes)

    def order(cost: TransferCost) -> tuple[bool, float]:
        if cost.expected_bytes is None or cost.method not in params.methods:
            return True, 0.0
        preferred = settings.prefer_rsync and cost.method == "rsync" and found["http"].expected_bytes is not None
        return False, (found["http"].expected_bytes or 0) - 0.5 if preferred else float(cost.expected_bytes)

    return tuple(sorted(found.values(), key=order))


async def fetch(params: FetchParams, store: ArtifactStore, settings: NodeSettings, job: JobContext) -> FetchResult:
    """Bring the artifact here by the cheapest method; if that fails, by the next one.

    Raises:
        ConfigurationError: no method is possible; each reason is given.
        NoRoomError: the file does not fit the quota, by whatever method.
        EpiError: the last method that was tried failed.
    """
    start = time.monotonic()
    damaged = await _set_damaged_aside(params, store, job)
    considered = costs(params, store, settings)
    usable = [cost.method for cost in considered if cost.expected_bytes is not None and cost.method in params.methods]
    if not usable:
        reasons = "; ".join(f"{cost.method}: {cost.reason or 'not allowed by this job'}" for cost in considered)
        raise ConfigurationError(f"there is no method to bring this artifact here: {reasons}", where=params.sha256)
    failed = [TransferFailure(method="here", reason=damaged)] if damaged else []
    for method in usable:
        traffic = _Traffic()
        try:
            await _bring(method, params, store, settings, job, traffic)
        except EpiError as error:
            if method == usable[-1] or isinstance(error, NoRoomError):
                raise
            log.warning("%s of %s failed: %s; the next method is tried", method, params.sha256[:12], error)
            failed.append(TransferFailure(method=method, reason=str(error), bytes_received=traffic.received))
            job.progress(0.0, f"{method} failed ({error.message}); trying the next method")
        else:
            break
    seconds = time.monotonic() - start
    if method == "here":
        log.info("%s was here already", params.sha256[:12])
    else:
        log.info("%s came by %s: %s bytes received in %.1f s", params.sha256[:12], method, traffic.received, seconds)
    return FetchResult(
        sha256=params.sha256, size_bytes=store.path(params.sha256).stat().st_size, method=method,
        bytes_received=traffic.received or 0, bytes_sent=traffic.sent, seconds=seconds,
        considered=considered, failed=tuple(failed),
    )  # fmt: skip


async def _set_damaged_aside(params: FetchParams, store: ArtifactStore, job: JobContext) -> str:
    """Check what is here already, hashing what changed on the disk; return what was wrong with the artifact itself."""
    wrong = ""
    for sha256 in filter(None, (params.base_sha256, params.sha256)):
        if store.has(sha256):
            job.progress(0.0, "checking what is here")
            try:
                await asyncio.to_thread(store.check, sha256)
            except DamagedArtifactError as error:
                wrong = str(error) if sha256 == params.sha256 else ""
    return wrong


@dataclass
class _Traffic:
    """Bytes over the net while a method is tried; null when its program did not say."""

    received: int | None = 0
    sent: int = 0


async def _bring(
    method: TransferMethod,
    params: FetchParams,
    store: ArtifactStore,
    settings: NodeSettings,
    job: JobContext,
    traffic: _Traffic,
) -> None:
    if method == "plan":
        await _by_plan(params, store, job, traffic)
    elif method == "http":
        await _by_http(params, store, settings, job, traffic)
    elif method == "rsync":
        await _by_rsync(params, store, settings, traffic)


async def _by_rsync(params: FetchParams, store: ArtifactStore, settings: NodeSettings, traffic: _Traffic) -> None:
    # Not HTTP's partial file: that one holds a beginning of the artifact, this one a copy of the basis.
    partial = store.partial_path(params.sha256).with_suffix(".rsync.download")
    basis = store.path(params.base_sha256) if params.base_sha256 and store.has(params.base_sha256) else None
    await asyncio.to_thread(store.make_room, max(params.size_bytes, basis.stat().st_size if basis else 0))
    source = f"{(settings.rsync_source or '').rstrip('/')}/{params.sha256}"
    traffic.received = None
    moved = await rsync(source, partial, shell=settings.rsync_shell, basis=basis)
    traffic.received, traffic.sent = moved.received, moved.sent
    await asyncio.to_thread(store.adopt, partial, expected_sha256=params.sha256)


async def _by_http(
    params: FetchParams, store: ArtifactStore, settings: NodeSettings, job: JobContext, traffic: _Traffic
) -> None:
    assert settings.source_url is not None, "costs() offers HTTP only with a source"
    token = load_token(settings.source_token_file) if settings.source_token_file else None
    source = Endpoint(settings.source_url, token, settings.source_ca_file)

    def report(received: int, here: int, total: int | None) -> None:
        traffic.received = received
        job.progress(here / max(total or here, 1), f"{here >> 20} of {(total or here) >> 20} MiB")

    await store.download(source, params.sha256, size_bytes=params.size_bytes or None, on_bytes=report)


async def _by_plan(params: FetchParams, store: ArtifactStore, job: JobContext, traffic: _Traffic) -> None:
    assert params.plan is not None and params.base_sha256 is not None, "costs() offers a plan only with a base"
    plan = params.plan
    traffic.received = len(canonical_json(plan))
    base = store.path(params.base_sha256)
    loop = asyncio.get_running_loop()

    def publish(fraction: float, message: str) -> None:
        loop.call_soon_threadsafe(job.progress, fraction, message)

    report = counted(throttled(publish), "bytes")

    await asyncio.to_thread(store.make_room, params.size_bytes or base.stat().st_size, keep={params.base_sha256})
    async with scratch_file(store) as target:
        try:
            await asyncio.to_thread(apply_plan, base, plan, target, on_progress=report)
            await asyncio.to_thread(store.adopt, target, expected_sha256=params.sha256)
        except DataError:
            job.progress(0.0, "the plan made another file: hashing the base model")
            await asyncio.to_thread(store.check, params.base_sha256, anew=True)  # raises what is wrong with it
            raise
