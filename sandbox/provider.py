"""The payment provider over HTTP: refunds that settle later and are told by webhook, and every way of doing it badly."""

from dataclasses import asdict
from datetime import UTC, datetime
from math import ceil

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, TypeAdapter
from starlette.routing import Route

from domain.events import Key, RefundFailed, RefundSettled
from sandbox.config import SandboxConfig
from sandbox.faults import Fault, Faults
from sandbox.jobs import JobKind, Jobs
from sandbox.refunds import Refund, RefundBooks, RefundRequest, RefundState
from sandbox.refusals import Refused
from sandbox.server import cut_connection
from sandbox.store import Store
from sandbox.webhooks import webhook

KEY = TypeAdapter[str](Key)


class Settlement(BaseModel):
    """What will become of a pending refund, and which fault its webhook suffers."""

    model_config = ConfigDict(frozen=True)
    refund_id: str
    failed: bool
    webhook_fault: Fault | None


class Provider:
    def __init__(self, config: SandboxConfig, store: Store, faults: Faults, jobs: Jobs) -> None:
        self._settle_seconds = config.settle_seconds
        self._store = store
        self._faults = faults
        self._jobs = jobs
        self._books = RefundBooks(store)
        jobs.on(JobKind.settle, lambda payload: self._settle(Settlement.model_validate_json(payload)))

    def routes(self) -> list[Route]:
        return [
            Route("/provider/refunds", self._post, methods=["POST"]),
            Route("/provider/refunds", self._list, methods=["GET"]),
            Route("/provider/refunds/{key:path}", self._look_up, methods=["GET"]),
            Route("/provider/books", self._totals, methods=["GET"]),
        ]

    async def _post(self, request: Request) -> Response:
        self._books.count_call()
        key = KEY.validate_python(request.headers.get("idempotency-key"))
        asked = RefundRequest.model_validate_json(await request.body())
        about = (key, asked.payment_ref)
        await self._faults.delay(about)
        self._refuse_by_fault(about, known=bool(self._books.of_key(key)))
        with self._store.transaction():
            refund_id, webhooks = self._accept(key, asked, about)
        await self._jobs.attempted(webhooks)
        return self._answer(request, self._books.of_id(refund_id), about)

    def _refuse_by_fault(self, about: tuple[str, ...], *, known: bool) -> None:
        refusals = (Fault.error, Fault.rate_limit) if known else (Fault.error, Fault.rate_limit, Fault.refuse)
        match self._faults.take(about, *refusals):
            case Fault.error, _:
                raise Refused(500, "internal")
            case Fault.rate_limit, seconds:
                raise Refused(429, "rate_limited", retry_after=max(1, ceil(seconds)))
            case Fault.refuse, _:
                raise Refused(422, "card_closed", "the card was closed")

    def _accept(self, key: str, asked: RefundRequest, about: tuple[str, ...]) -> tuple[str, list[int]]:
        """The id of the refund under this key, and the webhooks that go out before the answer. Refused: nothing moved."""
        known = self._books.of_key(key)
        if known and not self._faults.take(about, Fault.forget_idempotency):
            if not self._books.is_of(known[-1], asked):
                raise Refused(409, "key_reused", f"{key} was used with another content")
            return known[-1].refund_id, []
        self._books.check_payment(asked)
        if self._books.exceeds(asked) and not self._faults.take(about, Fault.accept_over_refund):
            raise Refused(422, "over_refund", f"{asked.payment_ref} captured {asked.captured}")
        blind = self._faults.take(about, Fault.lookup_blind)
        refund = self._books.open(key, asked, blind_seconds=blind.seconds if blind else 0.0)
        return refund.refund_id, self._plan_settlement(refund.refund_id, about)

    def _plan_settlement(self, refund_id: str, about: tuple[str, ...]) -> list[int]:
        late = self._faults.take(about, Fault.settle_later, Fault.fail_later)
        told = self._faults.take(about, Fault.webhook_first, Fault.duplicate_webhook, Fault.no_webhook)
        settlement = Settlement(
            refund_id=refund_id,
            failed=late is not None and late.fault is Fault.fail_later,
            webhook_fault=told.fault if told else None,
        )
        if settlement.webhook_fault is Fault.webhook_first:
            return self._settle(settlement)
        self._jobs.add(JobKind.settle, settlement, after_seconds=late.seconds if late else self._settle_seconds)
        return []

    def _settle(self, settlement: Settlement) -> list[int]:
        """The ids of the webhooks that tell of it."""
        state, code = (RefundState.failed, "card_closed") if settlement.failed else (RefundState.succeeded, "")
        report = _report(self._books.settle(settlement.refund_id, state, code))
        event_id = f"{settlement.refund_id}-{'failed' if settlement.failed else 'settled'}"
        match settlement.webhook_fault:
            case Fault.no_webhook:
                event_ids = []
            case Fault.webhook_first:
                event_ids = [event_id, event_id]
            case Fault.duplicate_webhook:
                event_ids = [event_id, event_id, f"{event_id}-again"]
            case _:
                event_ids = [event_id]
        return [self._jobs.add(JobKind.webhook, webhook(each, "/sandbox/provider", report)) for each in event_ids]

    def _answer(self, request: Request, refund: Refund, about: tuple[str, ...]) -> Response:
        match self._faults.take(about, Fault.accept_then_drop, Fault.accept_then_error, Fault.garbage):
            case Fault.accept_then_drop, _:
                return cut_connection(request)
            case Fault.accept_then_error, _:
                raise Refused(500, "internal")
            case Fault.garbage, _:
                return Response("<html>Bad Gateway", media_type="text/html")
        return JSONResponse(asdict(refund))

    async def _look_up(self, request: Request) -> Response:
        key = request.path_params["key"]
        refunds = self._books.of_key(key, visible=True)
        if self._faults.take((key, *(refund.payment_ref for refund in refunds)), Fault.lookup_down):
            raise Refused(500, "internal")
        if not refunds:
            raise Refused(404, "not_found", f"no refund under {key}")
        return JSONResponse({**asdict(refunds[-1]), "count": len(refunds)})

    async def _list(self, request: Request) -> Response:
        asked = request.query_params
        refunds = self._books.all(payment_ref=asked.get("payment_ref"), state=asked.get("state"))
        return JSONResponse({"refunds": [asdict(refund) for refund in refunds]})

    async def _totals(self, _request: Request) -> Response:
        return JSONResponse(asdict(self._books.totals()))


def _report(refund: Refund) -> RefundSettled | RefundFailed:
    told = {
        "provider": "sandbox",
        "refund_key": refund.key,
        "provider_ref": refund.refund_id,
        "amount": refund.amount,
        "currency": refund.currency,
    }
    now = datetime.now(UTC)
    if refund.state == RefundState.failed:
        return RefundFailed(**told, code=refund.code, message="the card was closed", failed_at=now)
    return RefundSettled(**told, settled_at=now)
