"""An agent with one kind of job, which never ends by itself: the real job server over loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn

from shared.kernel.records import Record
from shared.service.http import make_app
from shared.wire.client import AgentClient
from shared.wire.job_server import JobContext, JobKind, JobServer, job_router


class Nothing(Record):
    pass


@asynccontextmanager
async def agent_that_hangs(path: Path) -> AsyncIterator[AgentClient]:
    async def hang(_params: Nothing, _job: JobContext) -> Nothing:
        await asyncio.sleep(3600)
        return Nothing()

    async with JobServer(path / "jobs.sqlite", [JobKind("hang", Nothing, hang)]).running() as jobs:
        app = make_app("agent", "1", None)
        app.include_router(job_router(jobs))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        client = AgentClient(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", None)
        try:
            yield client
        finally:
            await client.close()
            server.should_exit = True
            await serving
