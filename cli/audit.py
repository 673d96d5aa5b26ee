"""`aftersales audit`: every invariant, with how many were checked and each violation.

The records are checked by themselves (`db.audit`), against the payment providers (asked by a worker), and against what the
workflows themselves answer. A case that moves while it is read is read again before it counts as a violation.
"""

import asyncio
from datetime import UTC, datetime

from sqlalchemy import select

from db.audit import CHECKS, Check
from db.models import Case, EffectRow
from db.session import Database
from domain.cases import OUTCOMES, CaseView
from domain.effects import OPEN, EffectKind, EffectState
from domain.errors import Invariant, NotFound
from starter import Starter

_AT_ONCE = 16
_LOOKS = 4
_BETWEEN_LOOKS = 1.5


async def audit(db: Database, starter: Starter) -> list[Check]:
    """All checks, in the order of the invariants. Raises `DependencyDown` if a server or worker is missing."""
    now = datetime.now(UTC)
    async with db.read() as session:
        checks = [await check(session, now) for check in CHECKS]
    return [*checks, await _providers_agree(db, starter), *await _cases_agree(db, starter)]


async def _providers_agree(db: Database, starter: Starter) -> Check:
    """Whatever was ever called is asked for: a final outcome must be the provider's, and a refund that we count as not
    made must not be there."""
    query = select(EffectRow).where(EffectRow.kind == EffectKind.refund, EffectRow.calls > 0, EffectRow.by_hand.is_(False))
    async with db.read() as session:
        rows = (await session.scalars(query)).all()
    said = await starter.ask_providers([row.key for row in rows])
    wrong = []
    for row in rows:
        theirs = said[row.key]
        missing = theirs.state is EffectState.unknown
        if row.state in OPEN or (missing and row.state in (EffectState.declined, EffectState.planned)):
            continue
        if theirs.state is not row.state or (row.reference and theirs.reference != row.reference):
            wrong.append(
                f"{row.key}: {row.state} {row.reference} here, {theirs.state} {theirs.reference or theirs.cause} there"
            )
        elif theirs.amount != row.amount:
            wrong.append(f"{row.key}: {row.amount} here, {theirs.amount} there")
    return Check("the provider agrees on what moved", len(rows), wrong)


async def _cases_agree(db: Database, starter: Starter) -> list[Check]:
    async with db.read() as session:
        ids = (await session.scalars(select(Case.case_id).order_by(Case.number))).all()
    several = asyncio.Semaphore(_AT_ONCE)

    async def look(case_id: str) -> tuple[str | None, str | None]:
        async with several:
            for _ in range(_LOOKS - 1):
                found = await _compare(db, starter, case_id)
                if found == (None, None):
                    return found
                await asyncio.sleep(_BETWEEN_LOOKS)
            return await _compare(db, starter, case_id)

    found = await asyncio.gather(*(look(case_id) for case_id in ids))
    return [
        Check("every case has one outcome, a live workflow, or attention", len(ids), [lost for lost, _ in found if lost]),
        Check("projections equal what the workflow answers", len(ids), [differs for _, differs in found if differs]),
    ]


async def _compare(db: Database, starter: Starter, case_id: str) -> tuple[str | None, str | None]:
    """(why the case is lost, how its projection differs)."""
    async with db.read() as session:
        case = (await session.scalars(select(Case).where(Case.case_id == case_id))).one()
    try:
        view = await starter.view(case_id)
    except NotFound:
        # A closed case outlives its history: the server keeps that only for the retention period.
        return (None if case.status in OUTCOMES else f"{case_id} is {case.status}, and no workflow runs it"), None
    except Invariant as error:
        return f"{case_id} is {case.status}, and cannot go on: {error}", None
    differs = [f"{name} {ours!s} / {theirs!s}" for name, ours, theirs in _pairs(case, view) if ours != theirs]
    return None, f"{case_id}: {', '.join(differs)}" if differs else None


def _pairs(case: Case, view: CaseView) -> list[tuple[str, object, object]]:
    """(name, in the tables, in the workflow)."""
    return [
        ("status", case.status, view.status),
        ("tracks", case.tracks, view.tracks),
        ("attention", case.attention, view.attention),
        ("deadline", case.deadline, view.deadline),
        ("approved", case.approved, view.approved),
        ("refunded", case.refunded, view.refunded),
    ]
