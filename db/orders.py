"""The order snapshot: what was bought, how it was paid, whether it left and arrived."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import EffectRow, Order, OrderLine, Tender
from db.session import insert
from domain import events
from domain.cases import order_key
from domain.effects import LIVE, EffectKind
from domain.settlement import TenderLeft


async def record(session: AsyncSession, paid: events.OrderPaid, sha: str) -> bool:
    """Store a new order with its lines and tenders; False if it is there already (the unique key is the guard)."""
    key = order_key(paid.merchant, paid.channel, paid.order_id)
    plain = paid.model_dump(include={"merchant", "channel", "order_id", "currency", "placed_at", "shipping"})
    values = dict(key=key, buyer_id=paid.buyer.buyer_id, buyer=paid.buyer, sha=sha, **plain)
    if not await session.scalar(insert(session)(Order).values(values).on_conflict_do_nothing().returning(Order.key)):
        return False
    await session.execute(insert(session)(OrderLine), [{"order_key": key, **line.model_dump()} for line in paid.lines])
    await session.execute(insert(session)(Tender), [{"order_key": key, **tender.model_dump()} for tender in paid.tenders])
    return True


async def find(session: AsyncSession, key: str, *, lock: bool = False) -> Order | None:
    """The order; with `lock` nobody else registers a case or plans a refund on it until the transaction ends."""
    return await session.get(Order, key, with_for_update=lock or None)


async def lines(session: AsyncSession, key: str) -> Sequence[events.OrderLine]:
    rows = await session.scalars(select(OrderLine).where(OrderLine.order_key == key))
    return [
        events.OrderLine(
            line_id=row.line_id, sku=row.sku, title=row.title, quantity=row.quantity, amount=row.amount, unit_cost=row.unit_cost
        )
        for row in rows
    ]


async def tenders(session: AsyncSession, key: str) -> dict[str, Tender]:
    """The order's payments by tender_id, in a fixed order."""
    rows = await session.scalars(select(Tender).where(Tender.order_key == key).order_by(Tender.tender_id))
    return {row.tender_id: row for row in rows}


async def tenders_left(session: AsyncSession, key: str) -> list[TenderLeft]:
    """What can still go back to each payment: captured − moved − moving − perhaps moved."""
    query = (
        select(EffectRow.tender_id, func.sum(EffectRow.amount))
        .where(EffectRow.order_key == key, EffectRow.kind == EffectKind.refund, EffectRow.state.in_(LIVE))
        .where(EffectRow.by_hand.is_(False))
        .group_by(EffectRow.tender_id)
    )
    used = {tender_id: int(amount or 0) for tender_id, amount in (await session.execute(query)).all()}
    found = await tenders(session, key)
    return [
        TenderLeft.model_validate(
            {"tender_id": row.tender_id, "kind": row.kind, "left": row.amount - used.get(row.tender_id, 0)}
        )
        for row in found.values()
    ]
