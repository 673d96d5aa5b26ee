"""The event intake over HTTP: CloudEvents in, one answer an event out. Its OpenAPI (`/openapi.json`) is part of the product."""

import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from domain.envelope import parse_json
from domain.errors import DependencyDown, Rejected
from domain.events import EVENT_TYPES
from settings import Settings
from starter import Answer, AnswerStatus, Starter
from web.schema import envelope_schema

log = structlog.get_logger()

_STATUS = {AnswerStatus.accepted: 202, AnswerStatus.duplicate: 200, AnswerStatus.waiting: 202, AnswerStatus.rejected: 422}
_BATCH_LIMIT = 1_000


class Problem(BaseModel):
    """What is wrong with a request as a whole."""

    field: str | None = None
    reason: str


_RESPONSES: dict[int | str, dict[str, Any]] = {
    **{code: {"model": Answer} for code in (202, 409, 422)},
    **{code: {"model": Problem} for code in (401, 413, 415, 429, 503)},
    207: {"model": list[Answer]},
}


def create_app(settings: Settings, starter: Starter) -> FastAPI:
    """The intake for one starter."""
    app = FastAPI(title="Aftersales event intake", version="1", description=__doc__, docs_url=None, redoc_url=None)
    limiter = _Limiter(settings.max_requests_per_second)
    webhooks = {source: Webhook(secret.get_secret_value()) for source, secret in settings.webhook_secrets.items()}

    @app.middleware("http")
    async def limited(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path == "/events" and not limiter.admits(request.client.host if request.client else ""):
            return _problem(429, None, "too many requests", {"Retry-After": "1"})
        return await go_on(request)

    @app.exception_handler(DependencyDown)
    async def down(_: Request, error: DependencyDown) -> JSONResponse:
        log.error("intake.down", error=error.message)
        return _problem(503, None, error.message, {"Retry-After": "5"})

    @app.post(
        "/events",
        response_model=Answer | list[Answer],
        responses=_RESPONSES,
        openapi_extra={"requestBody": {"required": True, "content": _documented()}},
        summary="Tell what happened: one CloudEvent, or a batch",
    )
    async def events(request: Request) -> Response:
        """`application/cloudevents+json` is one event, answered 202 accepted (or waiting), 200 duplicate, 409 or 422
        rejected; `application/cloudevents-batch+json` is a list, answered 207 with one answer an event, the good ones
        taken whatever the others are. An answer means that the event is stored: nothing that was answered is lost."""
        body = await _limited_body(request, settings.max_body_bytes)
        if body is None:
            return _problem(413, "body", f"larger than {settings.max_body_bytes} bytes")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/cloudevents+json", "application/cloudevents-batch+json", "application/json"):
            return _problem(415, "content-type", "not application/cloudevents+json or application/cloudevents-batch+json")
        try:
            raw = parse_json(body)
        except Rejected:
            if not (settings.allow_unsigned or any(_signed(known, body, request) is None for known in webhooks.values())):
                return _problem(401, "webhook-signature", "not signed by a source that we know")
            return _answered(await starter.take_text(body))  # kept with the reason
        many = raw if isinstance(raw, list) else [raw]
        if len(many) > _BATCH_LIMIT:
            return _problem(413, "body", f"more than {_BATCH_LIMIT} events in a batch")
        if wrong := _unsigned(settings, webhooks, many, body, request):
            return _problem(401, "webhook-signature", wrong)
        answers = [await starter.take(one) for one in many]
        return _answered(answers[0]) if not isinstance(raw, list) else JSONResponse([_plain(a) for a in answers], 207)

    @app.get("/health", summary="Whether the intake is up")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


async def _limited_body(request: Request, limit: int) -> bytes | None:
    """The body, read no further than the limit; None beyond it."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _unsigned(settings: Settings, webhooks: dict[str, Webhook], many: list[Any], body: bytes, request: Request) -> str | None:
    """Why the signature does not stand for every event of the body; None if it does, or none is needed."""
    signed = "webhook-signature" in request.headers
    if not signed and settings.allow_unsigned:
        return None
    sources = {str(one.get("source")) if isinstance(one, dict) else "" for one in many}
    for source in sources:
        if source not in webhooks:
            if signed and settings.allow_unsigned:
                continue
            return f"no secret is known for source {source!r}"
        if wrong := _signed(webhooks[source], body, request):
            return f"source {source!r}: {wrong}"
    return None


def _signed(webhook: Webhook, body: bytes, request: Request) -> str | None:
    """What is wrong with the signature; None if nothing is."""
    try:
        webhook.verify(body, dict(request.headers), json_parse=False)
    except (WebhookVerificationError, ValueError) as error:
        return str(error) or type(error).__name__
    return None


class _Limiter:
    """A token bucket a client address: `rate` a second, bursts of twice that."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admits(self, client: str) -> bool:
        now = time.monotonic()
        tokens, since = self._buckets.pop(client, (2.0 * self._rate, now))
        tokens = min(2.0 * self._rate, tokens + (now - since) * self._rate)
        self._buckets[client] = (max(0.0, tokens - 1), now)
        while len(self._buckets) > 10_000:
            self._buckets.popitem(last=False)
        return tokens >= 1


def _answered(answer: Answer) -> Response:
    status = 409 if answer.conflict else _STATUS[answer.status]
    return JSONResponse(_plain(answer), status)


def _plain(answer: Answer) -> dict[str, Any]:
    plain: dict[str, Any] = answer.model_dump(mode="json", exclude={"conflict"}, exclude_none=True)
    return plain


def _problem(status: int, field: str | None, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(Problem(field=field, reason=reason).model_dump(exclude_none=True), status, headers=headers)


def _documented() -> dict[str, Any]:
    one = {"oneOf": [envelope_schema(name) for name in EVENT_TYPES]}
    return {
        "application/cloudevents+json": {"schema": one},
        "application/cloudevents-batch+json": {"schema": {"type": "array", "items": json.loads(json.dumps(one))}},
    }
