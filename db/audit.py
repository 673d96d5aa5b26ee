"""The invariants that can be checked in the records alone; `cli.audit` adds what the providers and the workflows say."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Select, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import (
    Case,
    ClaimRow,
    ClaimState,
    EffectRow,
    EntryLineRow,
    EntryRow,
    InboxRow,
    InboxState,
    OrderLine,
    Tender,
)
from domain.cases import OUTCOMES
from domain.effects import LIVE, EffectKind, EffectState
from domain.ledger import Account


class Check(NamedTuple):
    """How many were checked of what must hold, and each violation as a sentence."""

    invariant: str
    checked: int
    violations: list[str]


_UNHEARD_FOR = timedelta(minutes=2)
"""An accepted event that its workflow has not heard of for so long is stuck, not on its way."""


async def tenders_hold(session: AsyncSession, now: datetime) -> Check:
    moving = (
        select(EffectRow.order_key, EffectRow.tender_id, func.sum(EffectRow.amount).label("sum"))
        .where(EffectRow.kind == EffectKind.refund, EffectRow.state.in_(LIVE), EffectRow.by_hand.is_(False))
        .group_by(EffectRow.order_key, EffectRow.tender_id)
        .subquery()
    )
    same = and_(Tender.order_key == moving.c.order_key, Tender.tender_id == moving.c.tender_id)
    query = select(Tender.order_key, Tender.tender_id, Tender.amount, moving.c.sum).join(moving, same)
    rows = (await session.execute(query)).all()
    wrong = [
        f"{order} tender {id_}: {sum_} refunded of {amount} captured" for order, id_, amount, sum_ in rows if sum_ > amount
    ]
    return Check("per tender: refunds moved, moving or perhaps moved ≤ captured", len(rows), wrong)


async def lines_hold(session: AsyncSession, now: datetime) -> Check:
    same = and_(OrderLine.order_key == ClaimRow.order_key, OrderLine.line_id == ClaimRow.line_id)
    query = (
        select(
            OrderLine.order_key,
            OrderLine.line_id,
            OrderLine.quantity,
            OrderLine.amount,
            func.sum(ClaimRow.quantity),
            func.sum(ClaimRow.amount),
        )
        .join(ClaimRow, same)
        .where(ClaimRow.state != ClaimState.released)
        .group_by(OrderLine.order_key, OrderLine.line_id, OrderLine.quantity, OrderLine.amount)
    )
    rows = (await session.execute(query)).all()
    wrong = [
        f"{order} line {line}: {units} units and {claimed} claimed of {quantity} and {amount}"
        for order, line, quantity, amount, units, claimed in rows
        if units > quantity or claimed > amount
    ]
    return Check("per order line: claimed units ≤ bought, claimed amount ≤ paid", len(rows), wrong)


async def references_are_unique(session: AsyncSession, now: datetime) -> Check:
    query = (
        select(EffectRow.reference, func.count())
        .where(EffectRow.kind == EffectKind.refund, EffectRow.reference != "", EffectRow.by_hand.is_(False))
        .group_by(EffectRow.provider, EffectRow.reference)
    )
    rows = (await session.execute(query)).all()
    return Check("one refund key ↔ one provider reference", len(rows), [f"{ref}: {n} keys" for ref, n in rows if n > 1])


async def entries_balance(session: AsyncSession, now: datetime) -> Check:
    query = (
        select(EntryRow.key, func.coalesce(func.sum(EntryLineRow.amount), 0), func.count(EntryLineRow.account))
        .outerjoin(EntryLineRow, EntryLineRow.entry_key == EntryRow.key)
        .group_by(EntryRow.key)
    )
    rows = (await session.execute(query)).all()
    wrong = [f"{key}: {n} lines add up to {total}" for key, total, n in rows if total or n < 2]
    return Check("every journal entry balances to zero", len(rows), wrong)


async def granted_is_moved_and_payable(session: AsyncSession, now: datetime) -> Check:
    """Per case: what the books say moved is what the effect log says moved and what the case shows; and nothing stays
    payable once the case is closed."""
    payable = await _by_case(session, _ledger(Account.refunds_payable))
    granted = await _by_case(session, _ledger(Account.refunds_payable).where(EntryRow.key.like("grant:%")))
    effects = (
        select(EffectRow.case_id, func.sum(EffectRow.amount))
        .where(EffectRow.kind == EffectKind.refund, EffectRow.state == EffectState.succeeded)
        .group_by(EffectRow.case_id)
    )
    moved = await _by_case(session, effects)
    rows = (await session.execute(select(Case.case_id, Case.status, Case.refunded))).all()
    wrong = []
    for case_id, status, refunded in rows:
        left = -payable.get(case_id, 0)
        if -granted.get(case_id, 0) != moved.get(case_id, 0) + left:
            wrong.append(f"{case_id}: granted {-granted.get(case_id, 0)}, moved {moved.get(case_id, 0)}, payable {left}")
        if status in OUTCOMES and (left or refunded != moved.get(case_id, 0)):
            wrong.append(f"{case_id} is closed: payable {left}, shown {refunded}, moved {moved.get(case_id, 0)}")
    return Check("granted = moved + still payable; books, effects and case agree", len(rows), wrong)


async def events_are_accounted_for(session: AsyncSession, now: datetime) -> Check:
    total = int(await session.scalar(select(func.count()).select_from(InboxRow)) or 0)
    late = and_(InboxRow.state == InboxState.accepted, InboxRow.received_at < now - _UNHEARD_FOR)
    mute = and_(InboxRow.state.in_((InboxState.waiting, InboxState.orphan, InboxState.rejected)), InboxRow.reason == "")
    stuck = await session.execute(select(InboxRow.id, InboxRow.type, InboxRow.state).where(late | mute))
    wrong = [f"inbox {id_} ({type_}) is {state} without a reason or an end" for id_, type_, state in stuck]
    return Check("every accepted event is processed, waiting, or an orphan with a reason", total, wrong)


async def messages_are_true(session: AsyncSession, now: datetime) -> Check:
    """One row a (case, template, recipient) is the effect log's own key; here, that none claims an unconfirmed refund."""
    paid = select(EffectRow.case_id).where(EffectRow.kind == EffectKind.refund, EffectRow.state == EffectState.succeeded)
    told = select(EffectRow.case_id).where(EffectRow.kind == EffectKind.message, EffectRow.key.like("%:refund_paid:%"))
    claimed = (await session.scalars(told.where(EffectRow.state == EffectState.succeeded))).all()
    confirmed = set((await session.scalars(paid)).all())
    return Check("no message claims a refund that is not confirmed", len(claimed), [c for c in claimed if c not in confirmed])


CHECKS: list[Callable[[AsyncSession, datetime], Awaitable[Check]]] = [
    tenders_hold,
    lines_hold,
    references_are_unique,
    entries_balance,
    granted_is_moved_and_payable,
    events_are_accounted_for,
    messages_are_true,
]


def _ledger(account: Account) -> Select[str, int | None]:
    return (
        select(EntryRow.case_id, func.sum(EntryLineRow.amount))
        .join(EntryLineRow, EntryLineRow.entry_key == EntryRow.key)
        .where(EntryLineRow.account == account)
        .group_by(EntryRow.case_id)
    )


async def _by_case(session: AsyncSession, query: Select[str, int | None]) -> dict[str, int]:
    return {case_id: int(total or 0) for case_id, total in (await session.execute(query)).all()}
