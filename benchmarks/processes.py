"""The processes of a deployment on this machine, as an operator would start them: the embedded Temporal server, the sandbox,
the intake (`aftersales serve`), the worker (`python worker.py`), and beside them the floor's worker."""

import asyncio
import base64
import json
import os
import secrets
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from temporalio.client import Client

from engine.client import connect
from engine.embedded import embedded_server
from settings import Settings

SETTLE_SECONDS = 0.2
"""How long the provider takes to confirm a refund."""

_ROOT = Path(__file__).parents[1]
_PATIENCE = 30.0
_OURS = ("AFTERSALES_", "TEMPORAL_", "DATABASE_URL")


@dataclass(frozen=True)
class Deployment:
    """What runs. `pids` by the names under which the report shows them; `submitted` is what the floor's worker writes."""

    client: Client
    intake: httpx.AsyncClient
    pids: dict[str, int]
    submitted: asyncio.StreamReader


@asynccontextmanager
async def deployed(data_dir: Path) -> AsyncIterator[Deployment]:
    """All processes, on free ports and with everything they keep in `data_dir`."""
    intake_port, sandbox_port = _free_port(), _free_port()
    intake_url, sandbox_url = f"http://127.0.0.1:{intake_port}", f"http://127.0.0.1:{sandbox_port}"
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    async with embedded_server(data_dir) as server, httpx.AsyncClient(base_url=intake_url, timeout=60) as intake:
        client = await connect(Settings(data_dir=data_dir), address=server.address)  # makes the key that all of them read
        env = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)} | {
            "AFTERSALES_DATA_DIR": str(data_dir),
            "AFTERSALES_POLICIES": str(_ROOT / "policies"),
            "AFTERSALES_INTAKE_PORT": str(intake_port),
            "AFTERSALES_SANDBOX_URL": sandbox_url,
            "AFTERSALES_ALLOW_UNSIGNED": "true",
            "AFTERSALES_MAX_REQUESTS_PER_SECOND": "100000",
            "AFTERSALES_WEBHOOK_SECRETS": json.dumps({"/sandbox/provider": secret}),
            "AFTERSALES_MESSAGE_WEBHOOK_SECRET": secret,
            "AFTERSALES_LOG_LEVEL": "warning",
            "TEMPORAL_ADDRESS": server.address,
        }
        box = ("-m", "sandbox", "--port", str(sandbox_port), "--db", str(data_dir / "sandbox.db"))
        told = ("--intake-url", f"{intake_url}/events", "--secret", secret, "--settle-seconds", str(SETTLE_SECONDS))
        async with (
            _process(data_dir, env, sys.executable, *box, *told) as sandbox,
            _process(data_dir, env, str(Path(sys.executable).with_name("aftersales")), "serve") as serve,
        ):
            await _answers(f"{sandbox_url}/health", sandbox)
            await _answers(f"{intake_url}/health", serve)
            async with (
                _process(data_dir, env, sys.executable, "worker.py") as worker,
                _process(data_dir, env, sys.executable, "-m", "benchmarks.floor", piped=True) as floor,
            ):
                pids = {"Temporal": server.pid, "worker": worker.pid, "intake": serve.pid, "sandbox": sandbox.pid}
                assert floor.stdout is not None
                yield Deployment(client, intake, pids | {"floor": floor.pid}, floor.stdout)


@asynccontextmanager
async def _process(data_dir: Path, env: dict[str, str], *command: str, piped: bool = False) -> AsyncIterator[Process]:
    """A process until the end of the block; what it says goes to a log in `data_dir`."""
    with (data_dir / "processes.log").open("ab") as log:
        output = PIPE if piped else log
        process = await asyncio.create_subprocess_exec(*command, cwd=_ROOT, env=env, stdin=DEVNULL, stdout=output, stderr=log)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _answers(url: str, process: Process) -> None:
    async with asyncio.timeout(_PATIENCE), httpx.AsyncClient() as http:
        while process.returncode is None:
            try:
                (await http.get(url)).raise_for_status()
                return
            except httpx.TransportError:
                await asyncio.sleep(0.1)
    raise RuntimeError(f"the process for {url} ended with {process.returncode}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
