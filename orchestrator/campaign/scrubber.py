"""Hashes all artifacts of the lab bit by bit, from the disks, while no campaign runs; when one begins, it ends at once.

A file that rots is then found before somebody needs it. What was hashed stays hashed, so a scrub that was stopped goes
on where it was, whole files at a time. Not here: the hashing (`shared.wire.artifact_checks`), and what is checked
before a campaign loads it (`cluster`, `pins`).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from orchestrator.campaign.lab import Lab
from orchestrator.settings import SURGEON
from shared.kernel.clock import NS_PER_S, utc_ns
from shared.kernel.errors import ConflictError, EpiError
from shared.kernel.records import NodeName, Record
from shared.wire.artifact_checks import ArtifactReport, ScrubParams, ScrubResult
from shared.wire.client import AgentClient
from shared.wire.job_keys import ScrubJob
from shared.wire.protocol import JobState

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 60.0
_NOTICE_S: Final = 0.2
_AGAIN_S: Final = 3600.0
"""After a scrub that left something although nobody else came: it is not tried over and over."""
_LONGEST_S: Final = 48 * 3600.0
_DAY_S: Final = 86_400.0


class AgentArtifacts(Record):
    """The artifacts of one agent; `scrub` is how far a scrub is that runs now, `error` why it did not answer."""

    agent: NodeName
    report: ArtifactReport | None = None
    scrub: float | None = None
    message: str = ""
    error: str = ""


class Scrubber:
    """One agent's scrub at a time, as long as the lab is free."""

    def __init__(self, lab: Lab, is_busy: Callable[[], bool], days: float) -> None:
        self._lab = lab
        self._is_busy = is_busy
        self._days = days
        self._agents: dict[NodeName, AgentClient] = {**lab.nodes, **lab.scorers, SURGEON: lab.surgeon}
        self._asked: set[NodeName] = set()
        self._not_before_s: dict[NodeName, float] = {}
        self._wake = asyncio.Event()
        self._known: tuple[AgentArtifacts, ...] = ()
        self._progress: dict[NodeName, tuple[float, str]] = {}

    def request(self) -> None:
        """Let every agent hash everything now, whenever it was last hashed.

        Raises:
            ConflictError: a campaign runs.
        """
        if self._is_busy():
            raise ConflictError("a campaign runs; nothing is hashed beside it", hint="ask again when it has ended")
        self._asked = set(self._agents)
        self._not_before_s.clear()
        self._wake.set()

    async def status(self) -> tuple[AgentArtifacts, ...]:
        """Return how the artifacts of all agents are; inside a window nobody is asked, and what was known is told."""
        if not self._lab.window_open:
            self._known = tuple(await asyncio.gather(*(self._status(name) for name in self._agents)))
        return self._known

    async def _status(self, name: NodeName) -> AgentArtifacts:
        fraction, message = self._progress.get(name, (None, ""))
        try:
            report = await self._report(name)
        except EpiError as error:
            return AgentArtifacts(agent=name, scrub=fraction, message=message, error=str(error))
        return AgentArtifacts(agent=name, report=report, scrub=fraction, message=message)

    async def _report(self, name: NodeName) -> ArtifactReport:
        return await self._agents[name].request_as(ArtifactReport, "GET", "/v1/artifact_report", patient=False)

    async def run_forever(self) -> None:
        """Look from time to time what is due."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            for name in self._agents:
                if not self._is_busy():
                    await self._scrub_if_due(name)

    async def _scrub_if_due(self, name: NodeName) -> None:
        asked, now_s = name in self._asked, utc_ns() / NS_PER_S
        if not asked and (not self._days or now_s < self._not_before_s.get(name, 0.0)):
            return
        before = utc_ns() - (0 if asked else round(self._days * _DAY_S * NS_PER_S))
        try:
            report = await self._report(name)
            oldest = report.oldest_hash_utc_ns
            if report.n_never_hashed or (oldest is not None and oldest < before):
                await self._scrub(name, ScrubParams(hashed_before_utc_ns=before))
            self._asked.discard(name)
        except EpiError as error:
            log.info("%s is not scrubbed: %s", name, error)
            self._not_before_s[name] = now_s + _AGAIN_S
            self._asked.discard(name)

    async def _scrub(self, name: NodeName, params: ScrubParams) -> None:
        """Let one agent hash its artifacts until it has, or until somebody needs the lab."""
        client, job = self._agents[name], ScrubJob(agent=name, utc_ns=utc_ns()).format()
        self._progress[name] = 0.0, "begins"

        def show(state: JobState) -> None:
            self._progress[name] = state.progress, state.message

        run = asyncio.create_task(
            client.run_as(ScrubResult, job, "scrub", params, timeout_s=_LONGEST_S, on_progress=show)
        )
        try:
            while not run.done() and not self._is_busy():
                await asyncio.wait((run,), timeout=_NOTICE_S)
            if not run.done():
                await client.cancel(job)
                run.cancel()
                log.info("the scrub of %s ends: a campaign begins", name)
                return
            result = run.result()
        finally:
            run.cancel()
            del self._progress[name]
        if result.n_left:
            self._not_before_s[name] = utc_ns() / NS_PER_S + _AGAIN_S
        level = logging.ERROR if result.damaged else logging.INFO
        log.log(level, "%s: %d artifacts hashed, %d of them damaged, %d left %s",
                name, result.n_hashed, len(result.damaged), result.n_left, result.reason)  # fmt: skip
