"""A way to cut a connection in the middle of a request, which ASGI itself does not have."""

import asyncio

from fastapi import Request, Response
from uvicorn.protocols.http.h11_impl import H11Protocol


class CuttableProtocol(H11Protocol):
    """Gives each request its connection, as `request.state.transport`: ASGI itself has no way to answer nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def cut_connection(request: Request) -> Response:
    """The caller sees its connection end without a byte; what is returned goes nowhere."""
    request.state.transport.abort()
    return Response()
