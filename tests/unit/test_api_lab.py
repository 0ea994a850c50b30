"""The lab's status while one of its agents hangs: it comes soon, and names that one."""

import asyncio
import socket
import time
from pathlib import Path

import pytest

from orchestrator.api import lab as api_lab
from orchestrator.api.lab import LabView
from orchestrator.campaign.lab import Lab
from orchestrator.settings import OrchestratorSettings
from shared.kernel.settings import AgentAddress
from shared.service.health import HealthRegistry
from shared.wire.health_api import health_of


def test_an_agent_that_hangs_does_not_keep_back_what_is_known_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_lab, "_ANSWERS_WITHIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # it takes connections and never answers
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        away = "http://127.0.0.1:1"
        settings = OrchestratorSettings(
            name="orchestrator", port=1, state_dir=tmp_path, results_dir=tmp_path, workload_prompts=tmp_path / "p.txt",
            nodes=(AgentAddress(name="node1", url=url), AgentAddress(name="node2", url=away)),
            surgeon=AgentAddress(name="surgeon", url=away), meter=AgentAddress(name="meter", url=url),
        )  # fmt: skip

        async def ask() -> dict[str, str]:
            lab = Lab(settings)
            try:
                status = await LabView(lab, lambda: health_of("orchestrator", "o", HealthRegistry())).status()
            finally:
                await lab.close()
            assert status.meter is None
            return {agent.name: agent.error.message for agent in status.agents if agent.error is not None}

        begun = time.monotonic()
        said = asyncio.run(ask())
        assert time.monotonic() - begun < 10
    assert said["node1"] == said["meter"] == "the agent did not answer within 0.2 s"
    assert "does not answer" in said["node2"]
