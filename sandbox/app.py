"""The counterparts as one web app, with the work that they still have to do running beside it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.routing import Route

from sandbox.config import SandboxConfig
from sandbox.faults import Faults
from sandbox.jobs import CONCURRENT_WEBHOOKS, Jobs
from sandbox.messages import MessageBox
from sandbox.provider import Provider
from sandbox.refusals import Refused, answer_invalid, answer_refused
from sandbox.server import CuttableProtocol
from sandbox.store import Store
from sandbox.warehouse import Warehouse
from sandbox.webhooks import Intake
from web.server import serving


def create_app(config: SandboxConfig) -> FastAPI:
    """To be run by `running`: cutting a connection needs its server."""
    store = Store(config.db)
    faults = Faults(store)
    jobs = Jobs(store)
    routes = [
        *Provider(config, store, faults, jobs).routes(),
        *Warehouse(config, store, faults, jobs).routes(),
        *MessageBox(config, store, faults).routes(),
        *faults.routes(),
        Route("/health", _health, methods=["GET"]),
    ]

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with _http_client() as http:
            intake = Intake(config.intake_url, config.secret.get_secret_value(), http)
            runner = asyncio.create_task(jobs.run(intake.post))
            try:
                yield
            finally:
                runner.cancel()
                with suppress(asyncio.CancelledError):
                    await runner
                store.close()

    # Plain Starlette routes: each handler reads its own model, and nothing is validated twice.
    return FastAPI(
        routes=list(routes),
        lifespan=lifespan,
        openapi_url=None,
        exception_handlers={Refused: answer_refused, ValidationError: answer_invalid},
    )


def running(config: SandboxConfig, port: int = 0) -> AbstractAsyncContextManager[str]:
    """The sandbox's base URL while it runs on 127.0.0.1; port 0 takes a free one. `Rejected` when the port is taken."""
    return serving(create_app(config), port=port, protocol=CuttableProtocol)


def _http_client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=CONCURRENT_WEBHOOKS, keepalive_expiry=2.0)
    return httpx.AsyncClient(timeout=10.0, limits=limits, trust_env=False)


async def _health(_request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})
