"""The orchestrator's API on its own, without any agent: refusals, one error shape, the live feed's door."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import websockets
from websockets.typing import Origin

from orchestrator.app import build_app
from orchestrator.settings import OrchestratorSettings
from shared.kernel.settings import AgentAddress

TOKEN = "t" * 32


@pytest.fixture
async def base(tmp_path: Path) -> AsyncIterator[str]:
    async with serving(tmp_path) as base:
        yield base


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[str]:
    """Serve an orchestrator whose agents are all away."""
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    away = "http://127.0.0.1:9"
    settings = OrchestratorSettings(
        name="orchestrator", port=1, token_file=token_file, state_dir=tmp_path / "state", results_dir=tmp_path,
        nodes=(AgentAddress(name="node1", url=away),), surgeon=AgentAddress(name="surgeon", url=away),
        meter=AgentAddress(name="meter", url=away), workload_prompts=tmp_path / "prompts.txt",
    )  # fmt: skip
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(build_app(settings, TOKEN), log_level="error"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"code", "fault", "message", "where", "hint"}
    return error


async def test_every_endpoint_refuses_without_and_with_a_wrong_token(base: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://{base}") as client:
        paths: dict[str, dict[str, Any]] = (await client.get("/openapi.json")).json()["paths"]
        asked = 0
        for path, methods in paths.items():
            if not path.startswith("/v1/"):
                continue
            concrete = path.replace("{repetition}", "1").replace("{kind}", "epi").replace("{", "").replace("}", "")
            for method in methods:
                for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
                    response = await client.request(method, concrete, headers=headers)
                    assert response.status_code in (401, 429), (method, path)
                    assert error_of(response)["fault"] == "auth"
                    asked += 1
        assert asked >= 30


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body.id"),
        ({"id": "x", "model": "m", "corpus": "c"}, "body"),
        ({"id": "../x", "model": "m", "corpus": "c"}, "body.id"),
        ({"id": "x", "model": "m", "corpus": "c", "surprise": 1}, "body.surprise"),
    ],
)
async def test_a_body_that_does_not_fit_names_the_field(base: str, body: dict[str, Any], where: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://{base}", headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        response = await client.post("/v1/campaigns", json=body)
        assert response.status_code == 422
        assert error_of(response)["where"] == where


async def test_what_does_not_exist_is_404_in_the_same_shape(base: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://{base}", headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        for path in ("/v1/campaigns/nobody", "/v1/nothing", "/v1/campaigns/nobody/runs/baseline/1"):
            response = await client.get(path)
            assert response.status_code == 404
            assert error_of(response)["fault"] == "configuration"


async def test_unknown_configuration_is_refused_before_anything_is_remembered(base: str) -> None:
    tasks = {"mmlu_5shot": "a", "arc_challenge_25shot": "b", "hellaswag_10shot": "c"}
    body = {"id": "x", "model": "m", "corpus": "c", "tasks": tasks, "configurations": "drop99_all"}
    async with httpx.AsyncClient(base_url=f"http://{base}", headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        response = await client.post("/v1/campaigns", json=body)
        assert response.status_code == 422
        assert "drop99_all" in error_of(response)["where"]
        assert (await client.get("/v1/campaigns")).json() == []


async def test_agents_that_are_away_are_told_one_by_one(base: str) -> None:
    async with httpx.AsyncClient(
        base_url=f"http://{base}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
    ) as client:
        lab = (await client.get("/v1/lab")).json()
        assert [agent["name"] for agent in lab["agents"]] == ["node1", "surgeon", "meter"]
        assert all(agent["error"]["fault"] == "infrastructure" for agent in lab["agents"])
        assert lab["meter"] is None


async def test_live_wants_a_token_or_the_session_of_its_own_page(base: str) -> None:
    url, own = f"ws://{base}/v1/live", Origin(f"http://{base}")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=f"http://{base}") as client:
        assert (await client.post("/v1/session", headers=bearer)).status_code == 200
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
        for origin, headers in (
            (None, {}), (own, {}), (None, cookie), (Origin("http://evil.example"), cookie),
            (Origin("http://evil.example"), bearer),
        ):  # fmt: skip
            with pytest.raises(websockets.InvalidStatus):
                async with websockets.connect(url, origin=origin, additional_headers=headers):
                    pass
        async with websockets.connect(url, additional_headers=bearer):
            pass
        async with websockets.connect(url, origin=own, additional_headers=cookie) as feed:
            form = (await client.get("/v1/session")).json()["form_token"]
            page = {"Origin": f"http://{base}", "X-EPI-Form-Token": form}
            assert (await client.delete("/v1/session", headers=page)).json() == {"sessions": 1}
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                while True:
                    await asyncio.wait_for(feed.recv(), 10)
            assert closed.value.rcvd is not None and closed.value.rcvd.reason == "this browser is signed out"


async def test_a_session_outlives_a_restart(tmp_path: Path) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with serving(tmp_path) as base, httpx.AsyncClient(base_url=f"http://{base}") as client:
        cookies = (await client.post("/v1/session", headers=bearer)).cookies
    async with serving(tmp_path) as base, httpx.AsyncClient(base_url=f"http://{base}", cookies=cookies) as client:
        assert (await client.get("/v1/session")).json()["form_token"]
    kept = tmp_path / "state" / "sessions.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not any(value in kept.read_text() for value in (*cookies.values(), TOKEN))
