"""Everything we know of one case, on one page. Nothing of it is personal: neither the buyer nor the buyer's words."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from db import cases, effects, ledger, orders
from db.models import Case, ClaimState, EffectRow, NoteRow, OrderLine, ParcelRow, ReceiptRow
from db.queries import CaseSummary, Needs
from domain.cases import Counted, Model, Note
from domain.effects import EffectKind, EffectState
from domain.events import CaseKind, Grade
from domain.ledger import Entry
from domain.policy import Decision
from domain.settlement import TenderLeft

M = TypeVar("M", bound=Model)


class PageLine(Model):
    """One order line of a case: what was asked for, what it holds of the entitlement (`claim`: reserved, taken or
    released), and what came back. Amounts are minor units; `missing` is None where nothing was counted."""

    line_id: str
    sku: str
    title: str
    asked: int
    asked_amount: int
    claim: ClaimState | None
    claimed: int
    claimed_amount: int
    received: dict[Grade, int]
    missing: int | None


class PageEffect(Model):
    key: str
    kind: EffectKind
    state: EffectState
    calls: int
    reference: str
    amount: int | None
    cause: str
    detail: str
    by_hand: bool
    created_at: datetime
    concluded_at: datetime | None


class PageMessage(Model):
    template: str
    recipient: str
    state: EffectState
    at: datetime | None
    detail: str


class PageReceipt(Model):
    receipt_id: str
    received_at: datetime
    waybill: str | None
    lines: tuple[Counted, ...]
    corrects: str | None
    counts: bool
    """False once a later receipt corrected it."""


class PageParcel(Model):
    waybill: str
    sent_at: datetime


class CasePage(CaseSummary):
    merchant: str
    channel: str
    reason: str
    requested_at: datetime
    lines: tuple[PageLine, ...]
    tenders: tuple[TenderLeft, ...]
    decision: Decision | None
    needs: Needs | None
    effects: tuple[PageEffect, ...]
    messages: tuple[PageMessage, ...]
    entries: tuple[Entry, ...]
    receipts: tuple[PageReceipt, ...]
    parcels: tuple[PageParcel, ...]
    timeline: tuple[Note, ...]


async def case_page(session: AsyncSession, name: str) -> CasePage:
    """By case id or case_no; raises `NotFound`."""
    case = await cases.named(session, name)
    done = await effects.of_case(session, case.case_id)
    receipts = await _receipts(session, case.case_id)
    parcels = await session.scalars(select(ParcelRow).where(ParcelRow.case_id == case.case_id).order_by(ParcelRow.sent_at))
    notes = await session.scalars(select(NoteRow).where(NoteRow.case_id == case.case_id).order_by(NoteRow.seq))
    return CasePage.of(
        case,
        merchant=case.merchant,
        channel=case.channel,
        decision=case.decision,
        needs=Needs.of(case.attention) if case.attention else None,
        reason=case.request.reason,
        requested_at=case.request.requested_at,
        lines=await _lines(session, case, receipts),
        tenders=tuple(await orders.tenders_left(session, case.order_key)),
        effects=_all(PageEffect, [row for row in done if row.kind is not EffectKind.message]),
        messages=tuple(_message(row) for row in done if row.kind is EffectKind.message),
        entries=tuple(await ledger.of_case(session, case.case_id)),
        receipts=receipts,
        parcels=_all(PageParcel, parcels),
        timeline=_all(Note, notes),
    )


async def _lines(session: AsyncSession, case: Case, receipts: Sequence[PageReceipt]) -> tuple[PageLine, ...]:
    sold = {row.line_id: row for row in await session.scalars(select(OrderLine).where(OrderLine.order_key == case.order_key))}
    claims = {row.line_id: row for row in await cases.claims_of(session, case.case_id)}
    counted = [line for receipt in receipts if receipt.counts for line in receipt.lines]
    lines = []
    for asked in case.request.lines:
        claim, received = claims.get(asked.line_id), _by_grade(asked.line_id, counted)
        expects = case.kind is CaseKind.return_ and bool(counted)
        lines.append(
            PageLine(
                line_id=asked.line_id,
                sku=sold[asked.line_id].sku,
                title=sold[asked.line_id].title,
                asked=asked.quantity,
                asked_amount=asked.amount,
                claim=claim.state if claim else None,
                claimed=claim.quantity if claim else 0,
                claimed_amount=claim.amount if claim else 0,
                received=received,
                missing=max(0, asked.quantity - sum(received.values())) if expects else None,
            )
        )
    return tuple(lines)


def _by_grade(line_id: str, counted: Sequence[Counted]) -> dict[Grade, int]:
    units: dict[Grade, int] = {}
    for item in counted:
        if item.line_id == line_id:
            units[item.grade] = units.get(item.grade, 0) + item.quantity
    return units


async def _receipts(session: AsyncSession, case_id: str) -> tuple[PageReceipt, ...]:
    query = select(ReceiptRow).where(ReceiptRow.case_id == case_id).order_by(ReceiptRow.received_at, ReceiptRow.receipt_id)
    rows = (await session.scalars(query)).all()
    corrected = {row.corrects for row in rows}
    return tuple(
        PageReceipt(
            receipt_id=row.receipt_id,
            received_at=row.received_at,
            waybill=row.waybill,
            lines=tuple(row.lines),
            corrects=row.corrects,
            counts=row.receipt_id not in corrected,
        )
        for row in rows
    )


def _message(row: EffectRow) -> PageMessage:
    template, _, recipient = row.content.rpartition(":")
    return PageMessage(template=template, recipient=recipient, state=row.state, at=row.concluded_at, detail=row.detail)


def _all(shape: type[M], rows: Iterable[object]) -> tuple[M, ...]:
    return tuple(shape.model_validate(row, from_attributes=True) for row in rows)
