"""What an event means for our records: done in the commit that accepts it, and safe to do again."""

from datetime import datetime
from functools import singledispatch
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from db import cases, effects, orders
from db.models import Case, InboxRow, InboxState, Order, ParcelRow, ReceiptRow
from db.session import insert
from domain import events
from domain.cases import OUTCOMES, CaseRequest, order_key
from domain.effects import EffectState, Outcome
from domain.entitlement import asked
from domain.envelope import Event
from domain.errors import Conflict, Rejected
from domain.events import EventData
from domain.policy import Policies


class Routed(NamedTuple):
    """What became of an event. *accepted* means that a workflow has still to be told: `start` it, or signal the fact to
    `case_id`. `awaits` names what a waiting event waits for, `wakes` what others may have waited for."""

    state: InboxState
    case_id: str | None = None
    reason: str = ""
    awaits: str | None = None
    wakes: str | None = None
    start: CaseRequest | None = None
    duplicate: bool = False


class Intake(NamedTuple):
    session: AsyncSession
    policies: Policies
    row: InboxRow
    sha: str
    at: datetime


async def apply(session: AsyncSession, event: Event, row: InboxRow, policies: Policies, at: datetime) -> Routed:
    """Raises `Rejected` or `Conflict` before anything is written, if the event cannot be true of our records."""
    routed: Routed = await _apply(event.data, Intake(session, policies, row, event.sha, at))
    row.state, row.reason, row.awaits = routed.state, routed.reason, routed.awaits
    row.case_id = routed.case_id or row.case_id
    row.settled_at = at if routed.state in (InboxState.processed, InboxState.orphan) else None
    await session.flush()
    return routed


@singledispatch
async def _apply(data: EventData, intake: Intake) -> Routed:
    raise Rejected(f"nothing is done about {type(data).__name__}", field="type")


@_apply.register
async def _(data: events.OrderPaid, intake: Intake) -> Routed:
    key = order_key(data.merchant, data.channel, data.order_id)
    if await orders.record(intake.session, data, intake.sha):
        return Routed(InboxState.processed, wakes=f"order:{key}")
    known = await orders.find(intake.session, key)
    assert known is not None
    if known.sha != intake.sha:
        raise Conflict(f"order {data.order_id} was told before with another content", field="data.order_id")
    return Routed(InboxState.processed, reason="told before", duplicate=True)


@_apply.register
async def _(data: events.OrderShipped, intake: Intake) -> Routed:
    order, routed = await _order(data, intake)
    if order:
        order.shipped_at, order.waybill = data.shipped_at, data.waybill
    return routed


@_apply.register
async def _(data: events.OrderDelivered, intake: Intake) -> Routed:
    order, routed = await _order(data, intake)
    if order:
        order.delivered_at = data.delivered_at
        order.shipped_at = order.shipped_at or data.delivered_at
    return routed


async def _order(data: events.OfOrder, intake: Intake) -> tuple[Order | None, Routed]:
    key = order_key(data.merchant, data.channel, data.order_id)
    order = await orders.find(intake.session, key, lock=True)
    if order is None:
        return None, _awaits_order(key, data.order_id)
    return order, Routed(InboxState.processed)


def _awaits_order(key: str, order_id: str) -> Routed:
    return Routed(InboxState.waiting, reason=f"data.order_id: order {order_id} is not known yet", awaits=f"order:{key}")


@_apply.register
async def _(data: events.AftersaleRequested, intake: Intake) -> Routed:
    session = intake.session
    if data.order_id is None:
        return Routed(InboxState.orphan, reason="data.order_id: the request names no order")
    key = order_key(data.merchant, data.channel, data.order_id)
    order = await orders.find(session, key)
    if order is None:
        return _awaits_order(key, data.order_id)
    known = await cases.find(session, data.case_id)
    if known is None:
        if data.currency != order.currency:
            raise Rejected(f"{data.currency} asked on an order in {order.currency}", field="data.currency")
        _, policy = intake.policies.of(data.merchant, data.channel)
        claims = asked(data, await orders.lines(session, key), policy.amount_above_paid)
        request = CaseRequest.of(data, claims)
        if await cases.open_case(session, request, order, data.note, intake.sha, intake.at):
            return Routed(InboxState.accepted, data.case_id, start=request, wakes=f"case:{data.case_id}")
        known = await cases.find(session, data.case_id)
        assert known is not None
    if known.request_sha != intake.sha:
        raise Conflict(f"{data.reference} is case {known.case_no} already, with another content", field="data.reference")
    if intake.row.case_id == known.case_id:  # this very event opened it; its workflow was perhaps not started
        return Routed(InboxState.accepted, known.case_id, start=known.request, wakes=f"case:{known.case_id}")
    return Routed(InboxState.processed, known.case_id, reason=f"the same request is {known.case_no}", duplicate=True)


@_apply.register(events.AftersaleWithdrawn)
@_apply.register(events.DeadlineChanged)
async def _(data: events.OfCase, intake: Intake) -> Routed:
    return await _fact(data.case_id, intake)


@_apply.register
async def _(data: events.ParcelReturning, intake: Intake) -> Routed:
    routed = await _fact(data.case_id, intake)
    if routed.state is InboxState.accepted:  # known from here on to receipts that name no more than the waybill
        row = {"waybill": data.waybill, "case_id": data.case_id, "sent_at": data.sent_at}
        await intake.session.execute(insert(intake.session)(ParcelRow).values(row).on_conflict_do_nothing())
    return routed._replace(wakes=f"waybill:{data.waybill}")


@_apply.register
async def _(data: events.WarehouseReceived, intake: Intake) -> Routed:
    session, case_id = intake.session, data.rma
    if case_id is None and data.waybill:
        announced = (await session.scalars(select(ParcelRow.case_id).where(ParcelRow.waybill == data.waybill))).all()
        case_id = announced[0] if len(announced) == 1 else None
    if case_id is None:
        reason = "data.rma: a parcel without an RMA" + (
            f", and waybill {data.waybill} belongs to no case" if data.waybill else ""
        )
        return Routed(InboxState.orphan, reason=reason, awaits=f"waybill:{data.waybill}" if data.waybill else None)
    if await session.get(ReceiptRow, (case_id, data.receipt_id)):
        return Routed(InboxState.processed, case_id, reason=f"receipt {data.receipt_id} is known", duplicate=True)
    return await _fact(case_id, intake)


@_apply.register
async def _(data: events.RefundSettled, intake: Intake) -> Routed:
    return await _refund(data, intake, Outcome(state=EffectState.succeeded, reference=data.provider_ref, amount=data.amount))


@_apply.register
async def _(data: events.RefundFailed, intake: Intake) -> Routed:
    failed = Outcome(
        state=EffectState.failed, reference=data.provider_ref, amount=data.amount, cause=data.code, detail=data.message
    )
    return await _refund(data, intake, failed)


async def _refund(data: events.OfRefund, intake: Intake, outcome: Outcome) -> Routed:
    """The provider's report is recorded and booked here, at once; the case is only told of it."""
    row = await effects.conclude(intake.session, data.refund_key, outcome, intake.at)
    if row is None:
        return Routed(InboxState.orphan, reason="data.refund_key: a refund that we did not ask for")
    if row.by_hand and outcome.state is EffectState.succeeded:
        reason = f"{data.refund_key} was settled by hand and is now reported paid: it may be paid twice"
        return Routed(InboxState.orphan, row.case_id, reason=reason)
    routed = await _fact(row.case_id, intake)
    if routed.state is InboxState.orphan and row.state is outcome.state:
        known_before = row.concluded_at is not None and row.concluded_at < intake.at
        return Routed(InboxState.processed, row.case_id, reason="known already", duplicate=True) if known_before else routed
    return routed


async def _fact(case_id: str, intake: Intake) -> Routed:
    """Something that happened to a case: it is told, or waits until the case registers."""
    case: Case | None = await cases.find(intake.session, case_id)
    if case is None:
        return Routed(InboxState.waiting, reason=f"case {case_id} is not known yet", awaits=f"case:{case_id}")
    if case.status in OUTCOMES:
        return Routed(InboxState.orphan, case_id, reason=f"case {case.case_no} is closed ({case.status})")
    return Routed(InboxState.accepted, case_id)
