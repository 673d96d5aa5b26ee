"""An ASGI app inside the running event loop, for as long as a block lasts."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

from domain.errors import Rejected


class _Server(uvicorn.Server):
    """Says when it listens, and leaves signals to whoever runs the event loop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(
    app: FastAPI, *, host: str = "127.0.0.1", port: int = 0, protocol: type[asyncio.Protocol] | None = None
) -> AsyncIterator[str]:
    """The base URL of `app` while it runs; port 0 takes a free one. `Rejected` when the port is taken."""
    # Named as TCP, for only then asyncio sends at once: else each answer waits 40 ms for the peer's acknowledgement.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise Rejected(f"port {port} on {host} is not free ({error.strerror}); choose another") from error
        server = _Server(_config(app, protocol))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await server.listening.wait()
            yield f"http://{host}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


def _config(app: FastAPI, protocol: type[asyncio.Protocol] | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol or "auto",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        # Longer than a client keeps an idle connection: closing it first would look like a lost answer.
        timeout_keep_alive=60,
        timeout_graceful_shutdown=2,
    )
