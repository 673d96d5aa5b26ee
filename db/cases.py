"""Cases in tables: opening one, reserving its claims, and storing the state that its workflow tells."""

import re
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Case, ClaimRow, ClaimState, NoteRow, Order
from db.session import insert
from domain.cases import CaseRequest, CaseStatus, Claim, Progress, Tracks
from domain.errors import NotFound


async def find(session: AsyncSession, case_id: str) -> Case | None:
    return await session.scalar(select(Case).where(Case.case_id == case_id))


async def named(session: AsyncSession, name: str) -> Case:
    """A case by its case id or its case_no; raises `NotFound`."""
    match = re.fullmatch(r"AS-\d{4}-0*(\d{1,12})", name.strip(), re.IGNORECASE)
    query = select(Case).where(Case.number == int(match[1]) if match else Case.case_id == name)
    case = await session.scalar(query)
    if case is None:
        raise NotFound(f"there is no case {name}")
    return case


async def open_case(session: AsyncSession, request: CaseRequest, order: Order, note: str, sha: str, at: datetime) -> bool:
    """Open a case; False if one with this id is there already (the unique key is the guard)."""
    values = dict(
        case_id=request.case_id,
        kind=request.kind,
        merchant=request.merchant,
        channel=request.channel,
        order_key=order.key,
        buyer_id=order.buyer_id,
        currency=request.currency,
        request=request,
        request_sha=sha,
        note=note,
        opened_at=at,
        revision=0,
        status=CaseStatus.open,
        tracks=Tracks(),
        requested=sum(line.amount for line in request.lines),
        approved=0,
        refunded=0,
    )
    new = await session.scalar(insert(session)(Case).values(**values).on_conflict_do_nothing().returning(Case.number))
    return new is not None


async def claims_on(session: AsyncSession, order_key: str, *, besides: str) -> dict[str, list[Claim]]:
    """What other cases reserved or took of an order, by line."""
    query = select(ClaimRow).where(
        ClaimRow.order_key == order_key, ClaimRow.case_id != besides, ClaimRow.state != ClaimState.released
    )
    found: dict[str, list[Claim]] = {}
    for row in await session.scalars(query):
        found.setdefault(row.line_id, []).append(Claim(line_id=row.line_id, quantity=row.quantity, amount=row.amount))
    return found


async def reserve(session: AsyncSession, request: CaseRequest, claims: Sequence[Claim]) -> None:
    rows = [
        {"case_id": request.case_id, "order_key": request.order_key, "state": ClaimState.reserved, **claim.model_dump()}
        for claim in claims
    ]
    if rows:
        await session.execute(insert(session)(ClaimRow).values(rows).on_conflict_do_nothing())


async def claims_of(session: AsyncSession, case_id: str) -> Sequence[ClaimRow]:
    return (await session.scalars(select(ClaimRow).where(ClaimRow.case_id == case_id).order_by(ClaimRow.line_id))).all()


async def asked_by(
    session: AsyncSession, merchant: str, buyer_id: str, since: datetime, until: datetime, *, besides: str
) -> tuple[int, int]:
    """(requests, minor units asked) of a buyer at a merchant in a window of time, other than one case."""
    query = select(func.count(), func.coalesce(func.sum(Case.requested), 0)).where(
        Case.merchant == merchant, Case.buyer_id == buyer_id, Case.case_id != besides, Case.opened_at.between(since, until)
    )
    requests, amount = (await session.execute(query)).one()
    return int(requests), int(amount)


async def store(session: AsyncSession, progress: Progress) -> None:
    """Put a case's state and the news since the last time into the tables; an older state never overwrites a newer one.
    A terminal state settles the claims: what was taken stays taken, the rest is free again."""
    view = progress.view
    await session.execute(
        update(Case)
        .where(Case.case_id == view.case_id, Case.revision <= view.revision)
        .values(
            revision=view.revision,
            status=view.status,
            tracks=view.tracks,
            attention=view.attention,
            attention_cause=view.attention.cause if view.attention else None,
            deadline=view.deadline,
            approved=view.approved,
            refunded=view.refunded,
            closed_at=progress.at if view.outcome else None,
        )
        .execution_options(synchronize_session=False)
    )
    if progress.notes:
        rows = [{"case_id": view.case_id, **note.model_dump()} for note in progress.notes]
        await session.execute(insert(session)(NoteRow).values(rows).on_conflict_do_nothing())
    if view.outcome:
        await _settle_claims(session, view.case_id, {claim.line_id: claim for claim in view.taken})


async def _settle_claims(session: AsyncSession, case_id: str, taken: dict[str, Claim]) -> None:
    for row in await claims_of(session, case_id):
        final = taken.get(row.line_id)
        row.state = ClaimState.taken if final else ClaimState.released
        if final:
            row.quantity, row.amount = final.quantity, final.amount
    await session.flush()
