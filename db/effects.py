"""The effect log in tables: one row a key, committed before the call; its confirmed outcome and the journal entry for it
are one commit, whoever learns of it first (the call's answer, a lookup, or the provider's webhook)."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from db import ledger
from db.models import EffectRow
from domain.cases import Model
from domain.effects import DEAD, EffectKind, EffectState, Outcome, news
from domain.errors import Conflict
from domain.ledger import movement


class Intent(Model):
    """What is about to be done, under which key. `content` is compared when the key comes again."""

    key: str
    case_id: str
    kind: EffectKind
    content: str
    provider: str


class RefundIntent(Intent):
    """A slice of a refund on one tender; `amount` in minor units."""

    order_key: str
    tender_id: str
    round: int
    amount: int
    currency: str


async def plan(session: AsyncSession, intent: Intent, at: datetime) -> EffectRow:
    """The row of the key, made as *planned* if it is new. Raises `Conflict` if the key stands for something else."""
    row = await session.get(EffectRow, intent.key, with_for_update=True)
    if row is not None:
        if row.content != intent.content:
            raise Conflict(f"effect key {intent.key} already stands for another content")
        return row
    row = EffectRow(
        **intent.model_dump(),
        state=EffectState.planned,
        reference="",
        cause="",
        detail="",
        by_hand=False,
        calls=0,
        created_at=at,
    )
    session.add(row)
    return row


def begin(row: EffectRow, at: datetime) -> None:
    """About to call: from here on, until an outcome is recorded, it is unknown what happened."""
    row.state, row.called_at, row.calls = EffectState.unknown, at, row.calls + 1


async def conclude(
    session: AsyncSession, key: str, outcome: Outcome, at: datetime, *, by_hand: bool = False
) -> EffectRow | None:
    """Record what was learned about an effect and book it, once. Returns the row, or None for a key that is not ours.

    An echo changes nothing, and neither does a report on what a person settled by hand. A confirmed amount that differs
    from the one asked for leaves the effect *unknown* with cause `amount_differs`: a person has to look."""
    row = await session.get(EffectRow, key, with_for_update=True)
    if row is None or row.by_hand or not news(row.state, outcome.state):
        return row
    if row.cause == "amount_differs" and outcome.state is EffectState.pending:
        return row  # older than the report of another amount
    if row.amount is not None and outcome.amount is not None and outcome.amount != row.amount:
        row.state, row.cause, row.reference = EffectState.unknown, "amount_differs", outcome.reference
        row.detail = f"asked for {row.amount}, the provider reports {outcome.amount} {outcome.state}"
        return row
    row.state = outcome.state
    row.reference = outcome.reference or row.reference
    row.cause, row.detail, row.by_hand = outcome.cause, outcome.detail, by_hand
    row.concluded_at = None if outcome.state is EffectState.pending else at
    if row.kind is EffectKind.refund:
        await _book(session, row, at)
    return row


async def _book(session: AsyncSession, row: EffectRow, at: datetime) -> None:
    assert row.amount is not None and row.currency is not None
    entry = movement(row.key, row.case_id, at, row.currency, row.amount, by_hand=row.by_hand)
    if row.state is EffectState.succeeded:
        await ledger.post(session, [entry])
    elif row.state in DEAD and await ledger.find(session, entry.key):
        await ledger.reverse(session, entry.key, at, "The provider took the refund back")


async def of_case(session: AsyncSession, case_id: str, kind: EffectKind | None = None) -> Sequence[EffectRow]:
    """A case's effects, oldest first."""
    query = select(EffectRow).where(EffectRow.case_id == case_id).order_by(EffectRow.created_at, EffectRow.key)
    if kind is not None:
        query = query.where(EffectRow.kind == kind)
    return (await session.scalars(query)).all()


async def by_key(session: AsyncSession, keys: Sequence[str]) -> Sequence[EffectRow]:
    return (await session.scalars(select(EffectRow).where(EffectRow.key.in_(keys)))).all()


async def settle_by_hand(session: AsyncSession, case_id: str, kind: EffectKind, reference: str, at: datetime) -> None:
    """A person saw to it another way: what did not succeed under its key is concluded with their reference."""
    for row in await of_case(session, case_id, kind):
        if row.state is not EffectState.succeeded:
            row.state, row.reference, row.by_hand, row.concluded_at = EffectState.succeeded, reference, True, at
    await session.flush()
