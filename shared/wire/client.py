"""Client of an agent: idempotent job submission, following by events, one error tree on both sides.

Records of an agent of a higher minor are read without what is unknown here (`compatibility`); any other agent's are
refused where they do not fit.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import httpx
import websockets
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from shared.kernel.defects import first_defect, unknown_fields
from shared.kernel.errors import BugError, DataError, EpiError, InfrastructureError, from_payload
from shared.service.endpoint import Endpoint, ask
from shared.service.reply import MAX_REPLY_BYTES
from shared.wire.compatibility import TolerantReader
from shared.wire.protocol import Event, Health, JobRequest, JobState, JobSummary, is_higher_minor

M = TypeVar("M", bound=BaseModel)
_RETRY_DELAYS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 2.0, 2.0)


class JobTimeoutError(InfrastructureError):
    """A job did not end in its time; it was told to stop, if its agent could be reached."""


class AgentClient:
    """Talks to one agent at `base_url` (for example `http://127.0.0.1:8701`)."""

    def __init__(
        self, base_url: str, token: str | None, *, timeout_s: float = 30.0, ca_file: Path | None = None
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._endpoint = Endpoint(self.base_url, token, ca_file)
        self._http = self._endpoint.client(timeout_s=timeout_s)
        self._tolerant = TolerantReader(self.base_url)
        self._is_newer = False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def request(
        self, method: str, path: str, *, json: Any = None, params: Any = None, patient: bool = True
    ) -> Any:
        """Send one request and return the parsed JSON answer; connection failures are retried for some seconds.

        Only idempotent requests are sent through here, so trying again is safe; without `patient` it is tried once.

        Raises:
            EpiError: the agent's own error, or InfrastructureError when it cannot be reached.
        """
        last: Exception | None = None
        for delay_s in (0.0, *_RETRY_DELAYS_S) if patient else (0.0,):
            await asyncio.sleep(delay_s)
            try:
                reply = await ask(self._http, method, path, json=json, params=params)
            except httpx.TransportError as error:
                last = error
                continue
            return reply.json()
        raise InfrastructureError(
            f"the agent does not answer: {last!r}", where=self.base_url, hint="is its process running?"
        )

    async def request_as(
        self, kind: type[M], method: str, path: str, *, json: Any = None, params: Any = None, patient: bool = True
    ) -> M:
        """Send one request as `request` does, and return the answer as a record.

        Raises:
            EpiError: as `request`.
            DataError: the answer is no such record; the field is named.
        """
        answer = await self.request(method, path, json=json, params=params, patient=patient)
        return await self.read(kind, answer, where=f"{method} {self.base_url}{path}")

    async def read(self, kind: type[M], answer: Any, *, where: str = "") -> M:
        """Return what the agent said as a record; of an agent of a higher minor, without what is unknown here.

        Raises:
            DataError: it is no such record; the field is named.
        """
        return (await self._read(kind, answer, where))[0]

    async def known_part(self, kind: type[BaseModel], answer: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON values of a record without what is unknown here; untouched where all is known.

        Raises:
            DataError: it is no such record.
        """
        record, is_whole = await self._read(kind, answer, "")
        return answer if is_whole else record.model_dump(mode="json", exclude_unset=True)

    async def _read(self, kind: type[M], answer: Any, where: str) -> tuple[M, bool]:
        """Return the record, and whether it is all that was said."""
        try:
            return kind.model_validate(answer), True
        except ValidationError as strict:
            error = strict
        if unknown_fields(error) and await self._is_of_higher_minor(answer):
            try:
                return self._tolerant.read(kind, answer, error), False
            except ValidationError as also:
                error = also
        raise DataError(
            f"the answer is no {kind.__name__}: {first_defect(error)}", where=where or self.base_url,
            hint="install the same version of EPI Factory on every machine",
        ) from error  # fmt: skip

    async def _is_of_higher_minor(self, answer: Any) -> bool:
        """Tell what the agent speaks: its health says it, this answer or another; asked once it is newer."""
        if not self._is_newer:
            told = answer if isinstance(answer, dict) and "protocol" in answer else None
            if told is None:
                with suppress(EpiError):
                    told = await self.request("GET", "/v1/health", patient=False)
            self._is_newer = isinstance(told, dict) and is_higher_minor(told.get("protocol"))
        return self._is_newer

    async def health(self, *, patient: bool = True) -> Health:
        """Return who answers at this address."""
        return await self.request_as(Health, "GET", "/v1/health", patient=patient)

    async def submit(self, job_id: str, kind: str, params: BaseModel, *, delay_s: float = 0.0) -> JobState:
        """Start a job, `delay_s` from now, or find the one that already has this id."""
        request = JobRequest(kind=kind, params=params.model_dump(mode="json"), delay_s=delay_s)
        return await self.request_as(JobState, "PUT", f"/v1/jobs/{job_id}", json=request.model_dump(mode="json"))

    async def job(self, job_id: str) -> JobState:
        """Return a job's present state."""
        return await self.request_as(JobState, "GET", f"/v1/jobs/{job_id}")

    async def unfinished_jobs(self) -> list[JobSummary]:
        """Return the jobs that are queued or running."""
        answer = await self.request("GET", "/v1/jobs", params={"unfinished": True, "limit": 1000})
        return [(await self.read(JobState, job)).summary for job in answer]

    async def cancel(self, job_id: str) -> JobState:
        """Cancel a job."""
        return await self.request_as(JobState, "DELETE", f"/v1/jobs/{job_id}")

    async def run(
        self,
        job_id: str,
        kind: str,
        params: BaseModel,
        *,
        timeout_s: float,
        delay_s: float = 0.0,
        on_progress: Callable[[JobState], None] | None = None,
    ) -> dict[str, Any]:
        """Start a job (or find it), wait for its end by the event feed, and return its result.

        Waiting is silent: the agent is not polled; after a lost feed it is asked once and followed again.
        `timeout_s` holds for running, and once more for waiting in the agent's queue before that.

        Raises:
            EpiError: what the agent reported.
            JobTimeoutError: `timeout_s` passed; the job is cancelled.
            InfrastructureError: the agent vanished or restarted during the job.
        """
        clock = _JobClock(delay_s + timeout_s)
        state = clock.seen(await self.submit(job_id, kind, params, delay_s=delay_s))
        while not state.is_terminal:
            if clock.is_over:
                await self._give_up(state, timeout_s)
            try:
                async with asyncio.timeout_at(clock.deadline) as limit, self.follow() as events:
                    state = clock.seen(await self.job(job_id))
                    limit.reschedule(clock.deadline)
                    if state.is_terminal:
                        break
                    async for event in events:
                        if event.job.id == job_id:
                            state = clock.seen(event.job)
                            limit.reschedule(clock.deadline)
                            if on_progress is not None:
                                on_progress(state)
                            if state.is_terminal:
                                break
            except (OSError, websockets.WebSocketException, TimeoutError):
                await asyncio.sleep(0.2)
            if not state.is_terminal:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(clock.deadline):
                        state = clock.seen(await self.job(job_id))
        if state.status == "finished":
            return state.result or {}
        if state.error is not None:
            raise from_payload(state.error)
        raise BugError(f"the job ended as {state.status!r} without an error", where=f"{self.base_url} {job_id}")

    async def run_as(
        self,
        result: type[M],
        job_id: str,
        kind: str,
        params: BaseModel,
        *,
        timeout_s: float,
        on_progress: Callable[[JobState], None] | None = None,
    ) -> M:
        """Run a job as `run` does, and return its result as a record.

        Raises:
            EpiError: as `run`.
            DataError: the result is no such record.
        """
        answer = await self.run(job_id, kind, params, timeout_s=timeout_s, on_progress=on_progress)
        return await self.read(result, answer, where=f"{self.base_url} {job_id}")

    async def _give_up(self, state: JobState, timeout_s: float) -> NoReturn:
        with suppress(EpiError):  # it may have vanished altogether
            await self.request("DELETE", f"/v1/jobs/{state.id}", patient=False)
        raise JobTimeoutError(
            f"still {state.status} after {timeout_s:.0f} s", where=f"{self.base_url} {state.id}",
            hint="look at the agent and its log",
        )  # fmt: skip

    @asynccontextmanager
    async def follow(self, since: int = 2**62) -> AsyncIterator[AsyncIterator[Event]]:
        """Open the agent's event feed; events after `since` come first, new ones follow."""
        async with self._endpoint.websocket(f"/v1/events?since={since}", max_bytes=MAX_REPLY_BYTES) as socket:

            async def events() -> AsyncIterator[Event]:
                async for message in socket:
                    yield await self.read(Event, from_json(message))

            yield events()


class _JobClock:
    """When a job's time is over; it starts anew when the job leaves the agent's queue."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._queued = True
        self.deadline = asyncio.get_running_loop().time() + timeout_s

    @property
    def is_over(self) -> bool:
        return asyncio.get_running_loop().time() >= self.deadline

    def seen(self, state: JobState) -> JobState:
        """Take note of a state, and return it."""
        if self._queued and state.status != "queued":
            self._queued = False
            self.deadline = asyncio.get_running_loop().time() + self._timeout_s
        return state
