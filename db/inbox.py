"""The inbox: every event that came in, unique by (source, id), with what became of it. Nothing is ever deleted here."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import InboxRow, InboxState
from db.session import insert
from domain.envelope import Event

_LONGEST_BODY = 65_536
"""A rejected body is kept up to this many characters: enough to see what was sent."""


async def add(session: AsyncSession, event: Event, body: str, at: datetime) -> tuple[InboxRow, bool]:
    """(row, whether it is new) for a valid event."""
    values = dict(
        source=event.source,
        event_id=event.id,
        type=event.type,
        state=InboxState.accepted,
        reason="",
        body=body,
        sha=event.sha,
        received_at=at,
    )
    new = await session.scalar(insert(session)(InboxRow).values(**values).on_conflict_do_nothing().returning(InboxRow))
    if new is not None:
        return new, True
    query = select(InboxRow).where(InboxRow.source == event.source, InboxRow.event_id == event.id).with_for_update()
    return (await session.scalars(query)).one(), False


async def keep_rejected(session: AsyncSession, source: str, type_: str, body: str, reason: str, at: datetime) -> None:
    """Keep what we refused, with the reason."""
    row = InboxRow(
        source=source[:200],
        event_id=None,
        type=type_[:80],
        sha="",
        body=body[:_LONGEST_BODY],
        reason=reason,
    )
    row.state, row.received_at, row.settled_at = InboxState.rejected, at, at
    session.add(row)


async def unfinished(session: AsyncSession, before: datetime, *, after: int = 0, limit: int = 500) -> Sequence[int]:
    """Ids beyond `after` of rows received before a moment that are neither processed nor given up."""
    query = (
        select(InboxRow.id)
        .where(InboxRow.state.in_((InboxState.accepted, InboxState.waiting)), InboxRow.received_at <= before)
        .where(InboxRow.id > after)
        .order_by(InboxRow.id)
        .limit(limit)
    )
    return (await session.scalars(query)).all()


async def processed(session: AsyncSession, row_id: int, at: datetime) -> None:
    """Its workflow has heard it."""
    await session.execute(update(InboxRow).where(InboxRow.id == row_id).values(state=InboxState.processed, settled_at=at))


async def waiting_for(session: AsyncSession, awaits: str) -> Sequence[int]:
    """Ids of rows that wait for an order (`order:…`), a case (`case:…`) or a parcel's announcement (`waybill:…`)."""
    query = (
        select(InboxRow.id)
        .where(InboxRow.awaits == awaits, InboxRow.state.in_((InboxState.waiting, InboxState.orphan)))
        .order_by(InboxRow.id)
    )
    return (await session.scalars(query)).all()
