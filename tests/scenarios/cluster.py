"""A desk whose parts can be killed: worker, Temporal server and sandbox are processes of their own, the intake is ours."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
from fastapi import Request, Response
from pydantic import SecretStr
from starlette.middleware.base import RequestResponseEndpoint

from cli.stack import SANDBOX_SOURCES, Stack, sweeping
from db.session import Database
from domain.policy_file import parse
from engine import attributes
from engine.client import connect
from engine.embedded import Server, embedded_server
from settings import Settings
from starter import Starter
from tests.desk import Desk, case_id, order_events, request_event
from web.app import create_app
from web.server import serving

ROOT = Path(__file__).parents[2]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Gate:
    """Holds the reports of the counterparts while it is shut. With the provider's fault `webhook_first` that is the moment
    after it moved the money and before anybody heard of it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def __call__(self, request: Request, go_on: RequestResponseEndpoint) -> Response:
        if "webhook-id" in request.headers:
            await self._open.wait()
        return await go_on(request)


class Processes:
    """Processes of this project that end with the test at the latest; their output goes to files of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._all: list[Process] = []

    async def start(self, *command: str, env: dict[str, str]) -> tuple[Process, Path]:
        log = self.folder / f"{len(self._all)}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=env, stdout=output, stderr=output)
        self._all.append(process)
        return process, log

    async def end(self) -> None:
        for process in self._all:
            await kill(process)


async def kill(process: Process) -> None:
    """SIGKILL, if it still runs."""
    if process.returncode is None:
        process.kill()
    await process.wait()


async def said(process: Process, log: Path, words: str, within: float = 30) -> str:
    """What the process printed, once it printed `words`."""
    async with asyncio.timeout(within):
        while words not in (text := await asyncio.to_thread(log.read_text, "utf-8")):
            assert process.returncode is None, f"exited with {process.returncode}: {text}"
            await asyncio.sleep(0.05)
    return text


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would lead a process elsewhere."""
    elsewhere = ("AFTERSALES_", "TEMPORAL_", "DATABASE_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(elsewhere)} | more


@dataclass
class Cluster(Desk):
    """`async with cluster(…)`; it begins without a worker."""

    processes: Processes = field(kw_only=True)
    temporal: AsyncExitStack = field(kw_only=True)
    gate: Gate = field(kw_only=True)
    box: Process = field(kw_only=True)

    async def worker(self) -> Process:
        """A new worker, at work."""
        settings = self.stack.settings
        env = environment(
            AFTERSALES_DATA_DIR=str(settings.data_dir),
            AFTERSALES_POLICIES=str(settings.policies),
            AFTERSALES_SANDBOX_URL=self.stack.sandbox_url,
            AFTERSALES_MESSAGE_WEBHOOK_SECRET=SECRET,
            DATABASE_URL=settings.records_url,
            TEMPORAL_ADDRESS=self.stack.server.address,
        )
        process, log = await self.processes.start(sys.executable, "worker.py", env=env)
        await said(process, log, "worker.started")
        return process

    async def restart_sandbox(self) -> None:
        """On the same port and the same books, after it was killed."""
        self.box = await _sandbox(self.processes, self.stack.intake_url, self.stack.sandbox_url)

    async def kill_temporal(self) -> None:
        os.kill(self.stack.server.pid, signal.SIGKILL)
        await self.temporal.aclose()

    async def restart_temporal(self) -> None:
        """On the same port and the same file."""
        port = int(self.stack.server.address.rpartition(":")[2])
        server = embedded_server(self.stack.settings.data_dir, port=port)
        again = await self.temporal.enter_async_context(server)
        assert again.address == self.stack.server.address

    async def ask_refunds(self, *numbers: int) -> list[str]:
        """Refund requests `R…` on orders `O…` of their own; the case ids."""
        for n in numbers:
            await self.tell(*order_events(f"O{n}"), request_event(f"O{n}", f"R{n}"))
        return [case_id(f"R{n}") for n in numbers]


@asynccontextmanager
async def cluster(folder: Path, records_url: str, policies: Path) -> AsyncIterator[Cluster]:
    """All but a worker, on migrated records."""
    settings = Settings(
        data_dir=folder / "data",
        policies=policies,
        allow_unsigned=True,
        webhook_secrets=dict.fromkeys(SANDBOX_SOURCES, SecretStr(SECRET)),
        sweep_seconds=0.5,
        DATABASE_URL=records_url,
    )
    db, gate, processes = Database(records_url), Gate(), Processes(folder)
    async with AsyncExitStack() as temporal:
        server = await temporal.enter_async_context(embedded_server(settings.data_dir))
        starter = await _starter(settings, db, server)
        app = create_app(settings, starter)
        app.middleware("http")(gate)
        try:
            async with serving(app) as intake_url, sweeping(starter, settings.sweep_seconds):
                sandbox_url = f"http://127.0.0.1:{_free_port()}"
                box = await _sandbox(processes, intake_url, sandbox_url)
                stack = Stack(settings, server, intake_url, sandbox_url, starter, db)
                async with _http(intake_url) as intake, _http(sandbox_url) as sandbox:
                    yield Cluster(stack, intake, sandbox, processes=processes, temporal=temporal, gate=gate, box=box)
        finally:
            gate.open()
            await processes.end()
            await db.close()


async def _starter(settings: Settings, db: Database, server: Server) -> Starter:
    client = await connect(settings, address=server.address)
    await attributes.register(client)
    policies = parse(settings.policy_texts())
    return Starter(db, policies, client, task_queue=settings.task_queue, order_wait=timedelta(days=7))


async def _sandbox(processes: Processes, intake_url: str, url: str) -> Process:
    arguments = {
        "--port": url.rpartition(":")[2],
        "--db": str(processes.folder / "sandbox.db"),
        "--intake-url": f"{intake_url}/events",
        "--secret": SECRET,
        "--auto-receive-seconds": "never",
    }
    parts = [part for pair in arguments.items() for part in pair]
    process, log = await processes.start(sys.executable, "-m", "sandbox", *parts, env=environment())
    async with _http(url) as http, asyncio.timeout(20):
        while True:
            assert process.returncode is None, log.read_text("utf-8")
            try:
                (await http.get("/health")).raise_for_status()
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return process


def _http(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
