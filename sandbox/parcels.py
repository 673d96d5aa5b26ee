"""How goods come to the warehouse: the plan of the parcels of a return, and the receipts that we are told of."""

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat

from domain.events import Grade, Key, Quantity, ReceivedLine, Ref, WarehouseReceived
from sandbox.jobs import JobKind, Jobs
from sandbox.store import Store
from sandbox.webhooks import webhook

RECEIPT_ID_ROOM = 58
"""What is left of the 64 characters of a receipt id after `.<n>`."""


class AnnouncedLine(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    line_id: Ref
    sku: Ref
    quantity: Quantity


class PlannedDelivery(BaseModel):
    """One receipt, `after_seconds` after it was planned, told of `repeat` times under different event ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    after_seconds: NonNegativeFloat
    receipt_id: Ref | None = None
    waybill: Ref | None = None
    final: bool = False
    corrects: Ref | None = None
    repeat: Annotated[int, Field(ge=1, le=100)] = 1
    lines: Annotated[list[ReceivedLine], Field(min_length=1, max_length=500)]


class Plan(BaseModel):
    """What will arrive for a return; no deliveries means that the parcel never comes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rma: Key
    deliveries: Annotated[list[PlannedDelivery], Field(max_length=100)]


class _Delivery(BaseModel):
    rma: Key
    planned: PlannedDelivery


class Parcels:
    """Every method is to be called inside a transaction, and knows nothing of cancelled returns: `drop` ends them."""

    def __init__(self, store: Store, jobs: Jobs, auto_receive_seconds: float | None) -> None:
        self._store = store
        self._jobs = jobs
        self._auto_receive_seconds = auto_receive_seconds
        jobs.on(JobKind.receive, lambda payload: self._receive(_Delivery.model_validate_json(payload)))

    def keep(self, plan: Plan) -> None:
        """For a return that is not announced yet."""
        self._store.execute("INSERT OR REPLACE INTO plans VALUES (?, ?)", plan.rma, plan.model_dump_json())

    def replan(self, plan: Plan) -> None:
        """In place of whatever has not arrived yet."""
        self.drop(plan.rma)
        for planned in plan.deliveries:
            delivery = _Delivery(rma=plan.rma, planned=planned)
            self._jobs.add(JobKind.receive, delivery, after_seconds=planned.after_seconds, subject=plan.rma)

    def expect(self, rma: str, announced: list[AnnouncedLine]) -> None:
        """By the plan that was kept, else everything at once and sellable, else nothing."""
        kept = self._store.execute("DELETE FROM plans WHERE rma = ? RETURNING plan", rma).fetchone()
        if kept:
            self.replan(Plan.model_validate_json(kept["plan"]))
        elif self._auto_receive_seconds is not None:
            lines = [ReceivedLine(line_id=line.line_id, quantity=line.quantity, grade=Grade.sellable) for line in announced]
            in_full = PlannedDelivery(after_seconds=self._auto_receive_seconds, final=True, lines=lines)
            self.replan(Plan(rma=rma, deliveries=[in_full]))

    def drop(self, rma: str) -> None:
        self._jobs.drop(JobKind.receive, rma)

    def received(self, rma: str) -> list[ReceivedLine]:
        """What has been counted so far, by line and grade, corrected receipts replaced by their corrections."""
        receipts = self._store.execute(
            "SELECT lines FROM receipts WHERE rma = ? AND receipt_id NOT IN"
            " (SELECT corrects FROM receipts WHERE rma = ? AND corrects IS NOT NULL) ORDER BY rowid",
            *(rma, rma),
        )
        counted: Counter[tuple[str, Grade]] = Counter()
        for receipt in receipts:
            for line in map(ReceivedLine.model_validate, json.loads(receipt["lines"])):
                counted[line.line_id, line.grade] += line.quantity
        return [ReceivedLine(line_id=line, quantity=n, grade=grade) for (line, grade), n in counted.items()]

    def _receive(self, delivery: _Delivery) -> None:
        rma, planned = delivery.rma, delivery.planned
        receipt_id = planned.receipt_id or self._next_receipt_id(rma)
        lines = json.dumps([line.model_dump(mode="json") for line in planned.lines])
        self._store.execute("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?)", rma, receipt_id, planned.corrects, lines)
        self._store.execute("UPDATE returns SET state = 'received' WHERE rma = ?", rma)
        receipt = WarehouseReceived(
            receipt_id=receipt_id,
            warehouse="sandbox",
            rma=rma,
            waybill=planned.waybill,
            corrects=planned.corrects,
            final=planned.final,
            lines=planned.lines,
            received_at=datetime.now(UTC),
        )
        for _ in range(planned.repeat):
            event_id = f"{receipt_id}-{uuid4().hex[:12]}"
            self._jobs.add(JobKind.webhook, webhook(event_id, "/sandbox/warehouse", receipt))

    def _next_receipt_id(self, rma: str) -> str:
        (so_far,) = self._store.execute("SELECT count(*) FROM receipts WHERE rma = ?", rma).fetchone()
        # An RMA may be longer than a receipt id: its end tells returns apart better than its beginning.
        return f"{rma.replace(':', '.')[-RECEIPT_ID_ROOM:].lstrip('._-')}.{so_far + 1}"
