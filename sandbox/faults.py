"""Faults on demand: who is struck, by what, and how often. They are kept in the store, so that they outlive a kill."""

import asyncio
from enum import StrEnum
from typing import Annotated, NamedTuple

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt
from starlette.routing import Route

from sandbox.store import Store


class Fault(StrEnum):
    """`seconds` in a comment marks the faults that read it. A fault is used up only when it takes effect."""

    slow = "slow"  # seconds before anything is done; of the provider's POST and of every warehouse call

    error = "error"  # provider: 500, nothing done
    rate_limit = "rate_limit"  # provider: 429, Retry-After in seconds, nothing done
    refuse = "refuse"  # provider: 422 card_closed; never of a key that has a refund, for a decline must be true
    accept_then_drop = "accept_then_drop"  # provider: recorded, then the connection is cut without an answer
    accept_then_error = "accept_then_error"  # provider: recorded, then 500
    garbage = "garbage"  # provider: recorded, then 200 with a body that is not JSON
    settle_later = "settle_later"  # seconds until the refund succeeds
    fail_later = "fail_later"  # seconds until the refund fails with card_closed
    forget_idempotency = "forget_idempotency"  # a known key makes a second refund
    accept_over_refund = "accept_over_refund"  # more than was captured is taken
    duplicate_webhook = "duplicate_webhook"  # the same event id twice, and once more under another
    webhook_first = "webhook_first"  # settled and told, twice, before the POST is answered
    no_webhook = "no_webhook"  # settled and not told
    lookup_blind = "lookup_blind"  # lookups by key find nothing for seconds; decided when the refund is made
    lookup_down = "lookup_down"  # lookups by key are answered 500

    warehouse_down = "warehouse_down"  # 503
    warehouse_refuse = "warehouse_refuse"  # 422 unknown_sku for a return that is not known yet, or a stop
    stop_too_late = "stop_too_late"  # the label is printed already

    message_down = "message_down"  # 503


class FaultOrder(BaseModel):
    """`match` is a whole name (payment_ref, key, RMA, merchant:channel:order, case id) or a beginning with `*` after it.

    `times` None means for ever."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    match: Annotated[str, Field(min_length=1, max_length=300)]
    fault: Fault
    times: PositiveInt | None = 1
    seconds: NonNegativeFloat = 0.0


class Taken(NamedTuple):
    fault: Fault
    seconds: float


class Faults:
    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        return [
            Route("/faults", self._post, methods=["POST"]),
            Route("/faults", self._delete, methods=["DELETE"]),
            Route("/faults", self._get, methods=["GET"]),
        ]

    def take(self, about: tuple[str, ...], *wanted: Fault) -> Taken | None:
        """The oldest of the `wanted` faults that strikes one of the names in `about`; one of its times is used up."""
        marks = ",".join("?" * len(wanted))
        rows = self._store.execute(f"SELECT * FROM faults WHERE fault IN ({marks}) ORDER BY id", *wanted)
        for row in rows.fetchall():
            if any(_strikes(row["match"], name) for name in about):
                if row["times"] == 1:
                    self._store.execute("DELETE FROM faults WHERE id = ?", row["id"])
                else:
                    self._store.execute("UPDATE faults SET times = times - 1 WHERE id = ?", row["id"])
                return Taken(Fault(row["fault"]), row["seconds"])
        return None

    async def delay(self, about: tuple[str, ...]) -> None:
        """The `slow` fault. A caller that gives up meanwhile does not stop what follows: that is the point of it."""
        if slow := self.take(about, Fault.slow):
            await asyncio.sleep(slow.seconds)

    async def _post(self, request: Request) -> JSONResponse:
        order = FaultOrder.model_validate_json(await request.body())
        self._store.execute(
            "INSERT INTO faults (match, fault, times, seconds) VALUES (?, ?, ?, ?)",
            *(order.match, order.fault, order.times, order.seconds),
        )
        return JSONResponse(order.model_dump(mode="json"))

    async def _delete(self, _request: Request) -> JSONResponse:
        cleared = self._store.execute("DELETE FROM faults").rowcount
        return JSONResponse({"cleared": cleared})

    async def _get(self, _request: Request) -> JSONResponse:
        rows = self._store.execute("SELECT match, fault, times, seconds FROM faults ORDER BY id")
        return JSONResponse({"faults": [dict(row) for row in rows]})


def _strikes(match: str, name: str) -> bool:
    return name.startswith(match[:-1]) if match.endswith("*") else name == match
