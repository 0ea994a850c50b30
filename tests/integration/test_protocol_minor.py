"""Daemons of two minors of the protocol: answers of the newer are read, what the older cannot do as asked it refuses.

The newer one is the real app whose answers say more than this version knows, over real sockets.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import Request, Response
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from node_agent.app import build_app
from node_agent.settings import NodeSettings
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.errors import ConfigurationError, ConflictError, DataError
from shared.kernel.records import SurgeryPlan
from shared.kernel.settings import validate_settings
from shared.wire.artifacts import PinParams, PinResult
from shared.wire.client import AgentClient
from shared.wire.node_jobs.host import NodeFacts
from shared.wire.protocol import PROTOCOL_VERSION, JobRequest, JobState
from shared.wire.surgeon_jobs import PlanResult

MAJOR, MINOR = PROTOCOL_VERSION
INVENTED = {"humidity_percent": 41.5, "inner": [{"a": 1}]}


class SaysMore(BaseHTTPMiddleware):
    """Puts a field into every record of an answer, as a later version may."""

    def __init__(self, app: Any, *, protocol: tuple[int, int]) -> None:
        super().__init__(app)
        self._protocol = protocol

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        body = b"".join([chunk async for chunk in response.body_iterator])  # type: ignore[attr-defined]
        said = _more(json.loads(body))
        if "protocol" in said:
            said["protocol"] = self._protocol
        return Response(json.dumps(said), response.status_code, media_type="application/json")


def _more(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _more(inner) for key, inner in value.items()} | {"invented": INVENTED}
    return [_more(inner) for inner in value] if isinstance(value, list) else value


@asynccontextmanager
async def agent(folder: Path, protocol: tuple[int, int] | None) -> AsyncIterator[AgentClient]:
    """Give a client of a node agent; with `protocol` it says more than this version knows."""
    app = build_app(NodeSettings(name="node1", state_dir=folder), None)
    if protocol is not None:
        app.add_middleware(SaysMore, protocol=protocol)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    client = AgentClient(f"http://127.0.0.1:{port}", None)
    try:
        yield client
    finally:
        await client.close()
        server.should_exit = True
        await serving


async def test_an_older_orchestrator_reads_a_newer_agent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "shared.wire.compatibility")
    async with agent(tmp_path, (MAJOR, MINOR + 1)) as client:
        for _ in range(3):
            assert (await client.health()).name == "node1"
            assert (await client.request_as(NodeFacts, "GET", "/v1/facts")).n_cpus > 0
        pinned = await client.run_as(PinResult, "t/pin", "pin", PinParams(owner="t"), timeout_s=10)
        assert pinned == PinResult(owners=("t",)) or pinned == PinResult()
        kept = await client.known_part(PinResult, {"missing": [], "owners": ["t"], "invented": INVENTED})
        assert kept == {"missing": [], "owners": ["t"]}, "what the journal keeps is known to this version"
        assert [job.id for job in await client.unfinished_jobs()] == []
        with pytest.raises(ConfigurationError, match="unknown job kind"):
            await client.run("t/unknown", "no_such_kind", PinParams(owner="t"), timeout_s=10)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(set(told)), "each field is named once"
    facts = next(one for one in told if "NodeFacts.invented" in one)
    assert f"speaks a newer protocol than {MAJOR}.{MINOR}" in facts and client.base_url in facts


@pytest.mark.parametrize("protocol", [PROTOCOL_VERSION, (MAJOR, MINOR - 1), (MAJOR + 1, MINOR + 1)])
async def test_of_nobody_else_is_anything_left_out(tmp_path: Path, protocol: tuple[int, int]) -> None:
    """An agent of this version that says what it does not have is broken, one of another major another thing."""
    async with agent(tmp_path, protocol) as client:
        with pytest.raises(DataError, match=r"the answer is no NodeFacts: .*invented"):
            await client.request_as(NodeFacts, "GET", "/v1/facts")
        with pytest.raises(DataError, match="the answer is no Health"):
            await client.health()


async def test_an_older_agent_refuses_what_it_cannot_do_as_asked(tmp_path: Path) -> None:
    """What a newer orchestrator asks for by a parameter that is unknown here would be another job."""
    async with agent(tmp_path, None) as client:
        newer = JobRequest(kind="pin", params=PinParams(owner="t").model_dump(mode="json"))
        asked = newer.model_dump(mode="json") | {"protocol": [MAJOR, MINOR + 1], "invented": INVENTED}
        state = await client.request_as(JobState, "PUT", "/v1/jobs/t/newer", json=asked)
        assert state.kind == "pin", "what is around the job says nothing of it"
        other = asked | {"params": {**newer.params, "invented": True}}
        with pytest.raises(ConfigurationError, match=r"params\.invented") as refused:
            await client.request("PUT", "/v1/jobs/t/other", json=other)
        assert f"{MAJOR}.{MINOR + 1}" in str(refused.value) and "same version" in refused.value.hint
        with pytest.raises(ConflictError):
            await client.request("PUT", "/v1/jobs/t/major", json=asked | {"protocol": [MAJOR + 1, 0]})
        same_version = asked | {"protocol": list(PROTOCOL_VERSION)}
        with pytest.raises(ConfigurationError, match="invented"):
            await client.request("PUT", "/v1/jobs/t/broken", json=same_version)


def test_what_decides_what_is_measured_stays_strict() -> None:
    with pytest.raises(ConfigurationError, match="invented"):
        validate_settings(NodeSettings, {"name": "node1", "state_dir": "/nowhere", "invented": 1}, where="node.toml")
    with pytest.raises(ValueError, match="invented"):
        CampaignSpec.model_validate({"id": "paper", "invented": 1})
    whole = SurgeryPlan(n_experts=4, kept=((0, 1),))
    said = {"plan": {**whole.model_dump(mode="json"), "invented": 1}, "plan_hash": "0" * 64}
    with pytest.raises(ValueError, match="the plan is not the one that plan_hash names"):
        PlanResult.model_validate(said, extra="ignore")
