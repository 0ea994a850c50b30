"""Journaled calls of agents: intent, call, result.

A call that belongs to no attempt (setup, configuration) is idempotent: its result is looked up in the journal first,
its job id is the same after a restart, and the agent is asked before anything is done again. A call inside an attempt
is made once; when it breaks, the attempt ends.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from orchestrator.domain.campaign.job_keys import AttemptJob, FreshJob, SetupJob
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.steps import SetupStep, Step, step_of_agent
from orchestrator.store.journal import Journal
from shared.files.integrity import DamagedArtifact
from shared.kernel.clock import utc_ns
from shared.kernel.errors import BugError, EpiError, ErrorPayload, InfrastructureError, from_payload
from shared.kernel.records import CampaignId, NodeName
from shared.wire.client import AgentClient, JobTimeoutError
from shared.wire.protocol import JobState

R = TypeVar("R", bound=BaseModel)
DAMAGED = "damaged"
"""What the journal calls an artifact that an agent found damaged, in place of a step."""


@dataclass(frozen=True)
class Call:
    """One job for one agent."""

    agent: NodeName
    client: AgentClient
    kind: str
    params: BaseModel
    timeout_s: float
    delay_s: float = 0.0
    part: int = 1
    """Of several jobs of one kind in a step, which one this is."""


class Caller:
    """Makes the journaled calls of one campaign."""

    def __init__(
        self,
        journal: Journal,
        campaign_id: CampaignId,
        max_attempts: int,
        recover: Callable[[NodeName], Awaitable[None]],
        on_progress: Callable[[str, str, JobState], None],
    ) -> None:
        self._journal = journal
        self._at_once = journal.strict  # within an attempt: waiting for a disk would fall into a window
        self._campaign = campaign_id
        self._max_attempts = max_attempts
        self._recover = recover
        self._on_progress = on_progress

    async def idempotent(self, subject: str, step: Step, call: Call, result: type[R]) -> R:
        """Return the step's result for a subject of the campaign, from the journal if it is known, else from the agent.

        The subject is a configuration, a quantisation or the like; empty: the campaign itself.

        Raises:
            EpiError: the agent's error; infrastructure faults only after `max_attempts` tries since the campaign was
                set running, other faults at once, also after a restart.
        """
        name = step_of_agent(step, call.agent)
        known = await self._journal.last_result(self._campaign, subject, name)
        if known is not None:
            return result.model_validate(known)
        for failure in await self._journal.since_running(self._campaign, subject, name, "failure"):
            if not isinstance(error := from_payload(ErrorPayload.model_validate(failure)), InfrastructureError):
                raise error
        while True:
            tried = await self._journal.count(self._campaign, subject, name, "failure")
            job = SetupJob(campaign=self._campaign, subject=subject, step=step, agent=call.agent, tried=tried + 1)
            intent = {"job": job.format(), "agent": call.agent}
            await self._journal.append(self._campaign, run=subject, step=name, kind="intent", payload=intent)
            try:
                answer = await self._run(job, subject, step, call, result)
            except EpiError as error:
                payload = error.to_payload().model_dump()
                await self._journal.append(self._campaign, run=subject, step=name, kind="failure", payload=payload)
                failures = len(await self._journal.since_running(self._campaign, subject, name, "failure"))
                if not isinstance(error, InfrastructureError) or failures >= self._max_attempts:
                    raise
                await self._recover(call.agent)
                continue
            await self._journal.append(self._campaign, run=subject, step=name, kind="result", payload=answer)
            return result.model_validate(answer)

    async def result_with(self, key: str, value: str) -> dict[str, Any] | None:
        """Return the payload of the newest result, of any campaign, whose `key` is `value`; None without one."""
        return await self._journal.result_with(key, value)

    async def run_fresh(self, step: SetupStep, call: Call, result: type[R], *, tries: int | None = None) -> R:
        """Make a setup call at every start of the campaign: its answer is of now, so the journal's is never taken.

        Raises:
            EpiError: the agent's error; infrastructure faults only after `tries` (null: `max_attempts`).
        """
        most = tries or self._max_attempts
        for tried in range(1, most + 1):
            job = FreshJob(campaign=self._campaign, step=step, agent=call.agent, utc_ns=utc_ns())
            try:
                return result.model_validate(await self._run(job, "", step, call, result))
            except InfrastructureError:
                if tried == most:
                    raise
                await self._recover(call.agent)
        raise BugError("max_attempts is at least 1", where=self._campaign)

    async def note(self, run: RunReference, attempt: int, step: Step) -> None:
        """Journal the intent of a step that the orchestrator does itself."""
        await self._at_once.append(self._campaign, run=run, attempt=attempt, step=step, kind="intent")

    async def came_of(self, run: RunReference, attempt: int, step: Step, agent: NodeName, result: BaseModel) -> None:
        """Journal what came of an agent's step of an attempt, where it is worth keeping even if the attempt fails."""
        await self._at_once.append(
            self._campaign, run=run, attempt=attempt, step=step_of_agent(step, agent), kind="result",
            payload=result.model_dump(mode="json"),
        )  # fmt: skip

    async def found_damaged(self, whose: RunReference | str, attempt: int, agent: NodeName,
                            damaged: Sequence[DamagedArtifact]) -> None:  # fmt: skip
        """Journal which files of an agent were found damaged and set aside."""
        for one in damaged:
            await self._at_once.append(
                self._campaign, run=whose, attempt=attempt, step=f"{DAMAGED}@{agent}", kind="result",
                payload=one.model_dump(mode="json"),
            )  # fmt: skip

    async def once(self, run: RunReference, attempt: int, step: Step, call: Call, result: type[R]) -> R:
        """Make a call that belongs to an attempt; large results go to files, not to the journal.

        Raises:
            EpiError: what the agent reported; the attempt ends.
        """
        job = AttemptJob(
            campaign=self._campaign, run=run, attempt=attempt, step=step, agent=call.agent, kind=call.kind,
            part=call.part,
        )  # fmt: skip
        await self._at_once.append(
            self._campaign, run=run, attempt=attempt, step=step, kind="intent",
            payload={"job": job.format(), "agent": call.agent},
        )  # fmt: skip
        answer = await self._run(job, run.format(), step, call, result)
        return result.model_validate(answer)

    async def _run(
        self, job: SetupJob | FreshJob | AttemptJob, whose: str, step: Step, call: Call, result: type[BaseModel]
    ) -> dict[str, Any]:
        """Return the job's result, as much of it as this version knows."""
        try:
            answer = await call.client.run(
                job.format(), call.kind, call.params, timeout_s=call.timeout_s, delay_s=call.delay_s,
                on_progress=lambda state: self._on_progress(whose, step, state),
            )  # fmt: skip
            return await call.client.known_part(result, answer)
        except JobTimeoutError as error:
            raise InfrastructureError(
                f"{step} took longer than {call.timeout_s:.0f} s and was given up", where=f"{call.agent} ({call.kind})",
                hint=f"look at {call.agent} and its log; if it is only slow, raise timeouts.steps.{step} in the spec",
            ) from error  # fmt: skip
        except EpiError as error:
            where = f"{step} on {call.agent}" + (f", {error.where}" if error.where else "")
            raise from_payload(error.to_payload().model_copy(update={"where": where})) from error
