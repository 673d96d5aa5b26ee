"""What people read: lists of cases, of what is stuck, and of what came in. Only the columns that are shown are fetched."""

from datetime import datetime
from typing import Any, Self

from pydantic import TypeAdapter
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer, load_only

from db.models import Case, InboxRow, InboxState
from domain.attention import CAUSES
from domain.cases import Action, Attention, CaseStatus, Model, Tracks, workflow_id
from domain.errors import NotFound
from domain.events import CaseKind


class CaseSummary(Model):
    """A case in a list. Amounts are minor units; `attention` is the cause code, if it needs a person."""

    case_id: str
    case_no: str
    kind: CaseKind
    status: CaseStatus
    tracks: Tracks
    order_id: str
    requested: int
    approved: int
    refunded: int
    currency: str
    deadline: datetime | None
    attention: str | None
    opened_at: datetime
    closed_at: datetime | None
    workflow_id: str

    @classmethod
    def of(cls, case: Case, **more: object) -> Self:
        same = (
            "case_id", "case_no", "kind", "status", "tracks", "requested", "approved", "refunded", "currency", "deadline",
            "opened_at", "closed_at",
        )  # fmt: skip
        told = {
            "order_id": case.order_key.split(":", 2)[2],
            "attention": case.attention_cause,
            "workflow_id": workflow_id(case.case_id),
        }
        return cls.model_validate({name: getattr(case, name) for name in same} | told | more)


class Needs(Model):
    """Why a case needs a person, what that means, and what can be done about it."""

    step: str
    cause: str
    detail: str
    since: datetime
    actions: tuple[Action, ...]
    en: str
    zh: str
    todo_en: str
    todo_zh: str

    @classmethod
    def of(cls, attention: Attention, **more: object) -> Self:
        known = CAUSES.get(attention.cause, CAUSES["unexpected"])
        meaning = {"en": known.en, "zh": known.zh, "todo_en": known.todo_en, "todo_zh": known.todo_zh}
        return cls.model_validate(attention.model_dump() | meaning | more)


class StuckCase(Needs):
    """`at_risk` is what was approved and has not been refunded, in minor units."""

    case_id: str
    case_no: str
    kind: CaseKind
    currency: str
    at_risk: int

    @classmethod
    def of_case(cls, case: Case, attention: Attention) -> Self:
        told = {name: getattr(case, name) for name in ("case_id", "case_no", "kind", "currency")}
        return cls.of(attention, at_risk=case.approved - case.refunded, **told)


class InboxEntry(Model):
    """An event that came in and what became of it."""

    id: int
    received_at: datetime
    source: str
    event_id: str | None
    type: str
    case_id: str | None
    state: InboxState
    reason: str
    settled_at: datetime | None


class Orphan(Model):
    """An event that nobody can place. `units` and `amount` (minor units) are the sums of its lines, or of the whole event
    where it has none."""

    id: int
    received_at: datetime
    type: str
    source: str
    event_id: str | None
    reason: str
    units: int
    amount: int
    currency: str


class _Said(Model):
    """As much of any event's data as its sums need."""

    class Line(Model):
        quantity: int = 0
        amount: int | None = None

    lines: tuple[Line, ...] = ()
    amount: int | None = None
    currency: str = ""


class _Body(Model):
    data: _Said = _Said()


async def newest_cases(
    session: AsyncSession,
    *,
    status: CaseStatus | None = None,
    kind: CaseKind | None = None,
    merchant: str | None = None,
    attention: bool = False,
    limit: int,
) -> tuple[list[CaseSummary], int]:
    """(the newest cases, how many more there are)."""
    wanted = []
    if status:
        wanted.append(Case.status == status)
    if kind:
        wanted.append(Case.kind == kind)
    if merchant:
        wanted.append(Case.merchant == merchant)
    if attention:
        wanted.append(Case.attention_cause.is_not(None))
    shown = load_only(
        Case.case_id, Case.kind, Case.status, Case.tracks, Case.order_key, Case.requested, Case.approved, Case.refunded,
        Case.currency, Case.deadline, Case.attention_cause, Case.opened_at, Case.closed_at,
    )  # fmt: skip
    query = select(Case).where(*wanted).order_by(Case.number.desc()).limit(limit)
    found = [CaseSummary.of(case) for case in await session.scalars(query.options(shown))]
    return found, await _more(session, select(Case.number).where(*wanted), len(found), limit)


async def stuck_cases(session: AsyncSession, cause: str | None = None) -> list[StuckCase]:
    """Cases that need a person, those that have waited longest first."""
    shown = load_only(
        Case.attention, Case.case_id, Case.opened_at, Case.kind, Case.currency, Case.approved, Case.refunded
    )  # fmt: skip
    wanted = Case.attention_cause == cause if cause else Case.attention_cause.is_not(None)
    rows = await session.scalars(select(Case).where(wanted).order_by(Case.number).options(shown))
    found = [StuckCase.of_case(row, row.attention) for row in rows if row.attention]
    return sorted(found, key=lambda case: case.since)


async def newest_events(session: AsyncSession, *, state: InboxState | None = None, limit: int) -> tuple[list[InboxEntry], int]:
    """(the newest rows of the inbox, how many more there are)."""
    wanted = [InboxRow.state == state] if state else []
    query = select(InboxRow).where(*wanted).order_by(InboxRow.id.desc()).limit(limit)
    rows = await session.scalars(query.options(defer(InboxRow.body)))
    found = [InboxEntry.model_validate(row, from_attributes=True) for row in rows]
    return found, await _more(session, select(InboxRow.id).where(*wanted), len(found), limit)


async def event_body(session: AsyncSession, row_id: int) -> str:
    """The body of an event as it came in: JSON, unless it was rejected for not being JSON."""
    body = await session.scalar(select(InboxRow.body).where(InboxRow.id == row_id))
    if body is None:
        raise NotFound(f"there is no inbox row {row_id}")
    return body


async def orphans(session: AsyncSession) -> list[Orphan]:
    """The orphan pool, oldest first."""
    query = select(InboxRow).where(InboxRow.state == InboxState.orphan).order_by(InboxRow.id)
    return [_orphan(row) for row in await session.scalars(query)]


def _orphan(row: InboxRow) -> Orphan:
    said = _BODY.validate_json(row.body).data
    return Orphan(
        id=row.id,
        received_at=row.received_at,
        type=row.type,
        source=row.source,
        event_id=row.event_id,
        reason=row.reason,
        units=sum(line.quantity for line in said.lines),
        amount=sum(line.amount or 0 for line in said.lines) if said.lines else said.amount or 0,
        currency=said.currency,
    )


_BODY = TypeAdapter(_Body)


async def _more(session: AsyncSession, query: Select[Any], shown: int, limit: int) -> int:
    if shown < limit:
        return 0
    return int(await session.scalar(select(func.count()).select_from(query.subquery())) or 0) - shown
