"""The message box: what the buyers would have read, and how often each message was sent."""

import json

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from standardwebhooks import Webhook as Signer
from standardwebhooks import WebhookVerificationError
from starlette.routing import Route

from sandbox.config import SandboxConfig
from sandbox.faults import Fault, Faults
from sandbox.refusals import Refused
from sandbox.store import Store


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    case_id: str
    template: str
    recipient: str
    locale: str
    subject: str
    text: str


class MessageBox:
    def __init__(self, config: SandboxConfig, store: Store, faults: Faults) -> None:
        self._signer = Signer(config.secret.get_secret_value())
        self._store = store
        self._faults = faults

    def routes(self) -> list[Route]:
        return [
            Route("/messages", self._take, methods=["POST"]),
            Route("/messages", self._list, methods=["GET"]),
        ]

    async def _take(self, request: Request) -> Response:
        body = await request.body()
        try:
            self._signer.verify(body, dict(request.headers), json_parse=False)
        except (WebhookVerificationError, ValueError) as error:
            raise Refused(401, "bad_signature", str(error)) from error
        message = Message.model_validate_json(body)
        if self._faults.take((message.case_id,), Fault.message_down):
            raise Refused(503, "unavailable")
        self._store.execute(
            "INSERT INTO messages (webhook_id, case_id, message, count) VALUES (?, ?, ?, 1)"
            " ON CONFLICT (webhook_id) DO UPDATE SET count = count + 1",
            *(request.headers["webhook-id"], message.case_id, message.model_dump_json()),
        )
        return JSONResponse({"id": message.id})

    async def _list(self, request: Request) -> Response:
        rows = self._store.execute(
            "SELECT message, count FROM messages WHERE case_id = coalesce(?, case_id) ORDER BY seq",
            request.query_params.get("case_id"),
        )
        return JSONResponse({"messages": [{**json.loads(row["message"]), "count": row["count"]} for row in rows]})
