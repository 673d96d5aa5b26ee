"""Running the system: `up` (all of it on this machine), `serve` (the intake beside a cluster), `demo`."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from cli.context import settings
from cli.demo import play_demo
from cli.output import console
from cli.stack import Ports, stack, sweeping
from db.migrate import upgrade
from db.session import Database
from domain.policy_file import parse
from engine.client import connect, runtime
from engine.logs import configure
from settings import Settings
from starter import Starter
from web.app import create_app
from web.server import serving


def add_to(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(serve)
    app.command()(demo)


def up(
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept; a second start goes on with it.")] = None,
    temporal_port: Annotated[int, typer.Option(help="0 takes a free port.")] = 7233,
    ui_port: Annotated[int, typer.Option(help="0 takes a free port.")] = 8233,
    intake_port: Annotated[int, typer.Option(help="0 takes a free port.")] = 8600,
    sandbox_port: Annotated[int, typer.Option(help="0 takes a free port.")] = 8650,
) -> None:
    """The whole stack on this machine until Ctrl-C: Temporal, records, sandbox, worker, intake.

    Example: aftersales up --data-dir ./data
    """
    found = settings(data_dir)
    configure(found)
    asyncio.run(_up(found, Ports(temporal=temporal_port, ui=ui_port, intake=intake_port, sandbox=sandbox_port)))


async def _up(found: Settings, ports: Ports) -> None:
    found = found.model_copy(update={"metrics_port": found.metrics_port or _free_port()})
    async with _stoppable() as stop, stack(found, ports=ports) as running:
        for name, where in (
            ("events in", f"POST {running.intake_url}/events   (API: {running.intake_url}/openapi.json)"),
            ("Temporal", running.server.address),
            ("Temporal UI", running.server.ui_url),
            ("sandbox", running.sandbox_url),
            ("metrics", f"http://127.0.0.1:{found.metrics_port}/metrics"),
            ("records", running.db.url.render_as_string()),
            ("data", str(found.data_dir.absolute())),
        ):
            console.print(f"{name:>12}  {where}", markup=False, highlight=False, soft_wrap=True)
        console.print("Ctrl-C drains and stops; the next start goes on with every open case.")
        await stop.wait()
        console.print("draining …")


def serve() -> None:
    """The event intake beside a Temporal cluster, until SIGTERM or Ctrl-C; needs DATABASE_URL and the client profile.

    Example: DATABASE_URL=postgresql://… TEMPORAL_ADDRESS=… aftersales serve
    """
    found = settings()
    configure(found)
    asyncio.run(_serve(found))


async def _serve(found: Settings) -> None:
    policies = parse(found.policy_texts())
    await asyncio.to_thread(upgrade, found.records_url)
    db = Database(found.records_url)
    async with _stoppable() as stop:
        client = await connect(found, runtime=runtime(found))
        wait = timedelta(seconds=found.order_wait_seconds)
        starter = Starter(db, policies, client, task_queue=found.task_queue, order_wait=wait)
        app = create_app(found, starter)
        async with serving(app, host=found.intake_host, port=found.intake_port) as url, sweeping(starter, found.sweep_seconds):
            console.print(f"events in: POST {url}/events", soft_wrap=True)
            await stop.wait()
    await db.close()


def demo(
    keep: Annotated[Path | None, typer.Option(help="Keep the demo's data in this folder, to look at it afterwards.")] = None,
) -> None:
    """A Chinese shop's day in under three minutes: a few hundred orders, over a hundred cases, then the audit.

    Exit status 0 only if the audit is clean.
    """
    raise typer.Exit(0 if asyncio.run(play_demo(keep)) else 1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def _stoppable() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM and Ctrl-C set."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    yield stop
