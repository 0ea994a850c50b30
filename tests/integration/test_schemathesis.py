"""Every endpoint of every service against its own OpenAPI description, on the real daemons of a lab with one node.

Generated requests, sound and unsound: no 5xx, no undocumented status, no answer that does not fit its schema. Then
every endpoint without a token, with a wrong one and with another agent's; and bodies that no generator thinks of.
"""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
import tomli_w
import websockets
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from orchestrator.local.layout import DemoSettings, load_demo
from shared.kernel.errors import ErrorPayload
from tests.support.lab import DEMO, TestLab, running_lab

SERVICES = ("orchestrator", "node1", "surgeon", "meter")
SOCKETS = {
    "orchestrator": "/v1/live",
    "node1": "/v1/events",
    "surgeon": "/v1/events",
    "meter": "/v1/live",
}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestLab]:
    demo: DemoSettings = load_demo(DEMO).model_copy(update={"nodes": ("node1",)})
    file = tmp_path_factory.mktemp("demo") / "demo.toml"
    file.write_text(tomli_w.dumps({"lab": demo.model_dump(mode="json", exclude_none=True)}))
    with running_lab(file) as lab:
        yield lab


def description_of(lab: TestLab, service: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{lab.url(service)}/openapi.json", timeout=30).json()
    return found


def with_plain_tuples(node: Any) -> Any:
    """Write `prefixItems` of one type as `items`: schemathesis 4.32 stumbles over its own translation of the former."""
    if isinstance(node, list):
        return [with_plain_tuples(one) for one in node]
    if not isinstance(node, dict):
        return node
    node = {key: with_plain_tuples(value) for key, value in node.items()}
    if isinstance(kinds := node.get("prefixItems"), list) and all(kind == kinds[0] for kind in kinds):
        del node["prefixItems"]
        node["items"] = kinds[0]
    return node


def check_service(lab: TestLab, service: str, examples: int) -> int:
    """Send `examples` sound and as many unsound requests to each operation; return how many were sent."""
    schema = schemathesis.openapi.from_dict(with_plain_tuples(description_of(lab, service)))
    headers = {"Authorization": f"Bearer {lab.token(service)}"}
    sent = 0
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()  # type: ignore[union-attr]
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                if mode is GenerationMode.NEGATIVE and not (
                    operation.query or operation.path_parameters or operation.body
                ):
                    continue  # nothing to be unsound about

                @settings(
                    max_examples=examples, deadline=None, database=None, derandomize=True,
                    phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
                )  # fmt: skip
                @given(case=operation.as_strategy(generation_mode=mode))
                def send(case: Case) -> None:
                    nonlocal sent
                    sent += 1
                    case.call_and_validate(
                        base_url=lab.url(service), session=session, headers=headers, checks=CHECKS, timeout=30
                    )

                send()
    return sent


@pytest.mark.parametrize("service", SERVICES)
def test_answers_are_those_of_the_description(lab: TestLab, service: str) -> None:
    assert check_service(lab, service, examples=4) >= 30


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("service", SERVICES)
def test_answers_are_those_of_the_description_at_length(lab: TestLab, service: str) -> None:
    sent = check_service(lab, service, examples=150)
    print(f"\n{service}: {sent} requests")
    assert sent >= 500


def refused_headers(lab: TestLab, service: str) -> Iterator[dict[str, str]]:
    yield {}
    yield {"Authorization": "Bearer wrong"}
    yield {"Authorization": lab.token(service)}  # no scheme
    yield {"Authorization": f"Basic {lab.token(service)}"}
    for other in SERVICES:
        if other != service:
            yield {"Authorization": f"Bearer {lab.token(other)}"}


@pytest.mark.parametrize("service", SERVICES)
def test_every_endpoint_is_closed_to_strangers_and_to_other_agents(lab: TestLab, service: str) -> None:
    asked = 0
    with httpx.Client(base_url=lab.url(service), timeout=30) as client:
        for path, methods in description_of(lab, service)["paths"].items():
            concrete = path.replace("{", "").replace("}", "")
            for method in methods:
                for headers in refused_headers(lab, service):
                    response = client.request(method, concrete, headers=headers)
                    assert response.status_code in (401, 429), (method, path, headers, response.text)
                    assert ErrorPayload.model_validate(response.json()["error"]).fault == "auth"
                    asked += 1
        # Whoever failed so often is slowed down; the owner at the same address is not.
        assert client.get("/v1/health", headers=bearer(lab, service)).status_code == 200
    assert asked >= 49


@pytest.mark.parametrize("service", SERVICES)
async def test_every_websocket_is_closed_to_strangers_and_to_other_agents(lab: TestLab, service: str) -> None:
    url = lab.url(service).replace("http", "ws", 1) + SOCKETS[service]
    for headers in refused_headers(lab, service):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(url, additional_headers=headers):
                pass
        assert refused.value.response.status_code == 403, headers
    for query in ("?since=no-number&hz=no-number", f"?since={10**30}&hz=nan"):
        try:
            async with websockets.connect(url + query, additional_headers=bearer(lab, service)):
                pass
        except websockets.InvalidStatus as error:
            assert error.response.status_code == 403, query
    async with websockets.connect(url, additional_headers=bearer(lab, service)) as socket:
        await (await socket.ping())


@pytest.mark.parametrize("service", SERVICES)
def test_hostile_requests_are_refused_in_the_one_shape(lab: TestLab, service: str) -> None:
    method, path = ("POST", "/v1/campaigns") if service == "orchestrator" else ("PUT", "/v1/jobs/x")
    if service == "meter":
        method, path = "POST", "/v1/calibrations"
    bodies = [
        b"", b"\xff\xfe", b"{", b"null", b"[]", b'"text"', b"NaN", b"1e999", b'{"id": NaN}',
        b'{"\\ud800": 1}', b'{"kind": "start_worker", "params": {"\\ud800": 1}}', b'{"kind": "\\u0000"}',
        b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5_000,
        json.dumps({"kind": "pin", "params": {"x" * 70_000: 1}}).encode(),
    ]  # fmt: skip
    with httpx.Client(base_url=lab.url(service), timeout=30, headers=bearer(lab, service)) as client:
        for body in bodies:
            for kind in ("application/json", "text/plain", "application/json; charset=utf-16", ";;;"):
                response = client.request(method, path, content=body, headers={"Content-Type": kind})
                assert response.status_code in (400, 413, 422), (body[:60], kind, response.text[:200])
                ErrorPayload.model_validate(response.json()["error"])
        paths = ("/v1/%00", "/v1/jobs/%ff", "/v1/jobs/..%2f..%2fetc", "/v1/artifacts/%2e%2e%2ftoken", "/v1//", "/%s")
        for hostile in paths:
            response = client.get(hostile)
            assert response.status_code in (404, 422), (hostile, response.text)
            ErrorPayload.model_validate(response.json()["error"])
        far = 10**40
        for query in (f"limit={far}", "limit=-1", f"before_utc_ns={far}", f"since={far}", "%ff=%ff", "limit=%00"):
            for listing in ("/v1/campaigns", "/v1/entries", "/v1/jobs", "/v1/samples"):
                assert client.get(f"{listing}?{query}").status_code in (200, 404, 422), (listing, query)


@pytest.mark.parametrize("service", SERVICES)
def test_a_body_in_chunks_is_limited_too(lab: TestLab, service: str) -> None:
    method, path = {"orchestrator": ("POST", "/v1/campaigns"), "meter": ("POST", "/v1/calibrations")}.get(
        service, ("PUT", "/v1/jobs/x")
    )
    chunk = b" " * (1 << 20)
    with closing(http.client.HTTPConnection(httpx.URL(lab.url(service)).netloc.decode(), timeout=60)) as connection:
        connection.putrequest(method, path)
        for name, value in (bearer(lab, service) | {"Content-Length": str(10**12)}).items():
            connection.putheader(name, value)
        connection.endheaders()  # not one byte of the body is sent: the announcement is enough
        assert connection.getresponse().status == 413
    with httpx.Client(base_url=lab.url(service), timeout=60, headers=bearer(lab, service)) as client:
        try:
            counted = client.request(method, path, content=(chunk for _ in range(80)))
        except httpx.TransportError:
            return  # the service hung up before the end, which is a refusal too
        assert counted.status_code == 413, counted.text
        assert ErrorPayload.model_validate(counted.json()["error"]).code == "http_413"


def bearer(lab: TestLab, service: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {lab.token(service)}"}


def test_the_jobs_of_an_agent_are_a_closed_set(lab: TestLab) -> None:
    for service in ("node1", "surgeon"):
        with httpx.Client(base_url=lab.url(service), timeout=30, headers=bearer(lab, service)) as client:
            for kind in ("shell", "run", "exec", "eval"):
                response = client.put("/v1/jobs/closed", json={"kind": kind, "params": {"command": "true"}})
                assert response.status_code == 422
                known = response.json()["error"]["hint"].removeprefix("known: ").split(", ")
            assert len(known) >= 5
            for one in known:  # a kind that exists refuses what it does not know, and starts nothing
                job = f"closed/{one}"
                response = client.put(f"/v1/jobs/{job}", json={"kind": one, "params": {"surprise": [1, {"a": None}]}})
                assert response.status_code == 422, (one, response.text)
                assert client.get(f"/v1/jobs/{job}").status_code == 404


def test_the_description_holds_no_secret_and_is_the_only_open_address(lab: TestLab) -> None:
    for service in SERVICES:
        text = json.dumps(description_of(lab, service))
        assert lab.token(service) not in text
        assert str(Path.home()) not in text
        assert json.loads(text)["security"] == [{"token": []}]
