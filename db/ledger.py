"""The books in tables: posting entries, taking one back, and what an account holds."""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import EntryLineRow, EntryRow
from db.session import insert
from domain.errors import Invariant
from domain.ledger import Account, Entry, Line, reversal

_AT_ONCE = 500
"""Entries read at a time; a query names them all by key."""


async def post(session: AsyncSession, entries: Iterable[Entry]) -> None:
    """Post each entry once: a key that is there already is left alone."""
    for entry in entries:
        if not entry.lines:
            continue
        values = entry.model_dump(exclude={"lines"})
        new = await session.scalar(insert(session)(EntryRow).values(**values).on_conflict_do_nothing().returning(EntryRow.key))
        if new:
            rows = [{"entry_key": entry.key, "account": line.account, "amount": line.amount} for line in entry.lines]
            await session.execute(insert(session)(EntryLineRow).values(rows))


async def find(session: AsyncSession, key: str) -> Entry | None:
    row = await session.scalar(select(EntryRow).where(EntryRow.key == key))
    return (await _whole(session, [row]))[0] if row else None


async def reverse(session: AsyncSession, key: str, at: datetime, text: str) -> None:
    """Take the entry `key` back whole, once."""
    entry = await find(session, key)
    if entry is None:
        raise Invariant(f"there is no entry {key} to take back")
    await post(session, [reversal(entry, at, text)])


async def of_case(session: AsyncSession, case_id: str) -> Sequence[Entry]:
    """A case's entries in the order in which they were posted."""
    rows = (await session.scalars(select(EntryRow).where(EntryRow.case_id == case_id).order_by(EntryRow.number))).all()
    return await _whole(session, rows)


async def held(session: AsyncSession, account: Account, case_id: str) -> int:
    """What a case left on an account, in minor units, debit positive."""
    query = (
        select(func.coalesce(func.sum(EntryLineRow.amount), 0))
        .join(EntryRow, EntryRow.key == EntryLineRow.entry_key)
        .where(EntryRow.case_id == case_id, EntryLineRow.account == account)
    )
    return int(await session.scalar(query) or 0)


async def balances(session: AsyncSession, before: datetime) -> dict[tuple[Account, str], int]:
    """What each account held before a moment, by currency, in minor units, debit positive."""
    query = (
        select(EntryLineRow.account, EntryRow.currency, func.sum(EntryLineRow.amount))
        .join(EntryRow, EntryRow.key == EntryLineRow.entry_key)
        .where(EntryRow.at < before)
        .group_by(EntryLineRow.account, EntryRow.currency)
        .order_by(EntryRow.currency, EntryLineRow.account)
    )
    return {(account, currency): int(amount) for account, currency, amount in await session.execute(query)}


async def between(session: AsyncSession, since: datetime | None, until: datetime | None) -> AsyncIterator[Entry]:
    """The entries of a period, both ends included, in the order in which they happened. Read as they are asked for: all of
    them may not fit into memory."""
    query = select(EntryRow).order_by(EntryRow.at, EntryRow.number).execution_options(yield_per=_AT_ONCE)
    if since is not None:
        query = query.where(EntryRow.at >= since)
    if until is not None:
        query = query.where(EntryRow.at <= until)
    async for rows in (await session.stream_scalars(query)).partitions():
        for entry in await _whole(session, rows):
            yield entry


async def _whole(session: AsyncSession, rows: Sequence[EntryRow]) -> Sequence[Entry]:
    lines: dict[str, list[Line]] = {row.key: [] for row in rows}
    found = await session.scalars(select(EntryLineRow).where(EntryLineRow.entry_key.in_(lines)))
    for line in found:
        lines[line.entry_key].append(Line(account=line.account, amount=line.amount))
    return [
        Entry(
            key=row.key,
            case_id=row.case_id,
            at=row.at,
            text=row.text,
            currency=row.currency,
            lines=tuple(sorted(lines[row.key], key=lambda line: -line.amount)),
        )
        for row in rows
    ]
