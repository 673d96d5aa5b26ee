"""The embedded stack: Temporal server, records, sandbox, worker and intake in one process and one folder.

It is what `aftersales up`, the demo, the benchmark and the scenario tests run on. Everything it needs to go on after a stop,
or a kill, is in the data directory: the server's and the records' databases, the sandbox's books, and the secrets.
"""

import asyncio
import base64
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog
from pydantic import SecretStr

import worker
from db.migrate import upgrade
from db.session import Database
from domain.errors import AftersalesError
from domain.policy_file import parse
from engine.client import connect, runtime
from engine.embedded import Server, embedded_server
from sandbox.app import running as sandbox_running
from sandbox.config import SandboxConfig
from settings import Settings
from starter import Starter
from web.app import create_app
from web.server import serving

log = structlog.get_logger()

SANDBOX_SOURCES = ("/sandbox/provider", "/sandbox/warehouse")


@dataclass(frozen=True)
class Ports:
    """0 takes a free one."""

    temporal: int = 0
    ui: int = 0
    intake: int = 0
    sandbox: int = 0


@dataclass(frozen=True)
class Stack:
    """What runs, and where."""

    settings: Settings
    server: Server
    intake_url: str
    sandbox_url: str
    starter: Starter
    db: Database


@asynccontextmanager
async def stack(
    settings: Settings,
    *,
    ports: Ports = Ports(),
    settle_seconds: float = 0.2,
    auto_receive_seconds: float | None = 1.0,
    max_cached_workflows: int = 1_000,
) -> AsyncIterator[Stack]:
    """The whole stack on `settings.data_dir`; it drains and stops at the end of the block."""
    secret = _secret(settings.data_dir / "sandbox.secret")
    settings = settings.model_copy(
        update={
            "allow_unsigned": True,  # everything binds loopback only
            "webhook_secrets": {source: SecretStr(secret) for source in SANDBOX_SOURCES} | settings.webhook_secrets,
            "message_webhook_secret": SecretStr(settings.message_webhook_secret.get_secret_value() or secret),
        }
    )
    policies = parse(settings.policy_texts())
    await asyncio.to_thread(upgrade, settings.records_url)
    db = Database(settings.records_url)
    async with embedded_server(settings.data_dir, port=ports.temporal, ui_port=ports.ui) as server:
        client = await connect(settings, address=server.address, runtime=runtime(settings))
        wait = timedelta(seconds=settings.order_wait_seconds)
        starter = Starter(db, policies, client, task_queue=settings.task_queue, order_wait=wait)
        async with serving(create_app(settings, starter), port=ports.intake) as intake_url:
            config = SandboxConfig(
                db=settings.data_dir / "sandbox.db",
                intake_url=f"{intake_url}/events",
                secret=SecretStr(secret),
                settle_seconds=settle_seconds,
                auto_receive_seconds=auto_receive_seconds,
            )
            async with sandbox_running(config, ports.sandbox) as sandbox_url:
                settings = settings.model_copy(update={"sandbox_url": sandbox_url})
                async with (
                    worker.running(settings, client, db, policies, max_cached_workflows=max_cached_workflows),
                    sweeping(starter, settings.sweep_seconds),
                ):
                    yield Stack(settings, server, intake_url, sandbox_url, starter, db)
    await db.close()


@asynccontextmanager
async def sweeping(starter: Starter, every: float) -> AsyncIterator[None]:
    """Sweep the inbox now and then (seconds) for as long as the block lasts."""

    async def sweep() -> None:
        while True:
            await asyncio.sleep(every)
            try:
                if moved := await starter.sweep():
                    log.info("inbox.swept", events=moved)
            except AftersalesError as error:
                log.warning("inbox.not_swept", error=str(error))

    task = asyncio.create_task(sweep())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _secret(path: Path) -> str:
    """The sandbox's webhook secret, made on first use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write("whsec_" + base64.b64encode(secrets.token_bytes(24)).decode())
    return path.read_text("ascii")
