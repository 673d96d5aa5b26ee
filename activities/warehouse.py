"""What we say to the warehouse, and what it counted."""

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.effects import Ask, EffectLog, verb
from adapters.warehouse.port import ExpectedLine, ReturnNotice, StopOrder, Warehouse
from db import cases, ledger, orders
from db.effects import Intent
from db.models import ReceiptRow
from db.session import Database, insert
from domain import effects
from domain.cases import CaseRequest, Claim, Counted, Model, Progress
from domain.effects import EffectKind, Outcome
from domain.events import Grade, OrderLine, WarehouseReceived
from domain.ledger import CountedAtCost, goods
from domain.money import share
from domain.settlement import Disposition, GradeTerms


class GoodsOfCase(Model):
    """Units of the order that a case is about."""

    progress: Progress
    request: CaseRequest
    claims: tuple[Claim, ...]


class Receipt(Model):
    """One receipt of a case, to be recorded and booked at cost."""

    progress: Progress
    request: CaseRequest
    received: WarehouseReceived
    grades: dict[Grade, GradeTerms]
    cost_percent: int


class WarehouseDesk:
    def __init__(self, db: Database, log: EffectLog, warehouse: Warehouse) -> None:
        self._db, self._log, self._warehouse = db, log, warehouse

    @activity.defn(name="expect_return")
    @verb
    async def expect_return(self, ask: GoodsOfCase) -> Outcome:
        """The RMA: tell the warehouse what will come. `detail` of a success is the address for the buyer."""
        request = ask.request
        lines = await self._expected(ask.progress, request, ask.claims)
        notice = ReturnNotice(rma=request.case_id, order_id=request.order_id, merchant=request.merchant, lines=lines)
        intent = _intent(effects.rma_key(request.case_id), request.case_id, EffectKind.rma, notice)
        return await self._perform(intent, lambda: self._warehouse.expect_return(notice))

    @activity.defn(name="cancel_return")
    @verb
    async def cancel_return(self, progress: Progress) -> Outcome:
        """Nothing will come after all."""
        rma = progress.case_id
        async with self._db.write() as session:
            await cases.store(session, progress)
        intent = Intent(
            key=effects.cancel_rma_key(rma), case_id=rma, kind=EffectKind.cancel_rma, content=rma, provider="warehouse"
        )
        return await self._perform(intent, lambda: self._warehouse.cancel_return(rma))

    @activity.defn(name="stop_shipment")
    @verb
    async def stop_shipment(self, ask: GoodsOfCase) -> Outcome:
        """Keep the goods from leaving; *declined* when it is too late."""
        request = ask.request
        lines = await self._expected(ask.progress, request, ask.claims)
        stop = StopOrder(order_key=request.order_key, case_id=request.case_id, lines=lines)
        intent = _intent(effects.stop_key(request.case_id), request.case_id, EffectKind.stop_shipment, stop)
        return await self._perform(intent, lambda: self._warehouse.stop_shipment(stop))

    @activity.defn(name="record_receipt")
    @verb
    async def record_receipt(self, receipt: Receipt) -> None:
        """Record what was counted and book it at cost; a correction takes the booking of the receipt it corrects back."""
        received, case_id = receipt.received, receipt.request.case_id
        counted = [Counted(line_id=line.line_id, quantity=line.quantity, grade=line.grade) for line in received.lines]
        row = dict(
            case_id=case_id,
            receipt_id=received.receipt_id,
            corrects=received.corrects,
            waybill=received.waybill,
            lines=counted,
            received_at=received.received_at,
        )
        async with self._db.write() as session:
            await session.execute(insert(session)(ReceiptRow).values(row).on_conflict_do_nothing())
            at = receipt.progress.at
            if received.corrects and await ledger.find(session, f"goods:{case_id}:{received.corrects}"):
                await ledger.reverse(session, f"goods:{case_id}:{received.corrects}", at, "Receipt corrected")
            by = select(ReceiptRow).where(ReceiptRow.case_id == case_id, ReceiptRow.corrects == received.receipt_id)
            overtaken = await session.scalar(by) is not None  # its correction came first, and counts instead
            priced = [] if overtaken else await self._at_cost(session, receipt, counted)
            entry = goods(received.receipt_id, case_id, at, receipt.request.currency, priced)
            await ledger.post(session, [entry] if entry else [])
            await cases.store(session, receipt.progress)

    async def _at_cost(self, session: AsyncSession, receipt: Receipt, counted: list[Counted]) -> list[CountedAtCost]:
        """Counted units of the order's own lines with their unit cost; what the order does not know has none."""
        lines = {line.line_id: line for line in await orders.lines(session, receipt.request.order_key)}
        return [
            CountedAtCost(
                counted=item,
                disposition=_disposition(receipt.grades, item.grade),
                unit_cost=_unit_cost(lines[item.line_id], receipt.cost_percent),
            )
            for item in counted
            if item.line_id in lines and item.grade is not Grade.wrong_item
        ]

    async def _expected(self, progress: Progress, request: CaseRequest, claims: tuple[Claim, ...]) -> tuple[ExpectedLine, ...]:
        async with self._db.write() as session:
            await cases.store(session, progress)
            lines = {line.line_id: line for line in await orders.lines(session, request.order_key)}
        return tuple(
            ExpectedLine(line_id=claim.line_id, sku=lines[claim.line_id].sku, quantity=claim.quantity) for claim in claims
        )

    async def _perform(self, intent: Intent, call: Ask) -> Outcome:
        row = await self._log.perform(intent, call)
        return Outcome(state=row.state, reference=row.reference, cause=row.cause, detail=row.detail)


def _intent(key: str, case_id: str, kind: EffectKind, content: Model) -> Intent:
    return Intent(key=key, case_id=case_id, kind=kind, content=content.model_dump_json(), provider="warehouse")


def _disposition(grades: Mapping[Grade, GradeTerms], grade: Grade) -> Disposition:
    return grades[grade].disposition


def _unit_cost(line: OrderLine, percent: int) -> int:
    return line.unit_cost if line.unit_cost is not None else share(line.amount, percent, 100 * line.quantity)
