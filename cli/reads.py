"""What people look at: `cases`, `stuck`, `orphans`, `inbox`, `audit`; one case whole is `cli.case_page`, how it came there
`cli.history`."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Annotated

import typer

from cli import case_page, history
from cli.audit import audit as audit_all
from cli.context import Json, desk, records
from cli.output import console, errors, json_lines, table
from db import queries
from db.audit import Check
from db.models import InboxState
from db.queries import CaseSummary, Orphan, StuckCase
from domain import money
from domain.attention import CAUSES
from domain.cases import CaseStatus
from domain.errors import Rejected
from domain.events import CaseKind

Limit = Annotated[int, typer.Option(min=1, help="Show at most this many, the newest.")]


def add_to(app: typer.Typer) -> None:
    app.command()(cases)
    case_page.add_to(app)
    history.add_to(app)
    app.command()(stuck)
    app.command()(orphans)
    app.command()(inbox)
    app.command()(audit)


def cases(
    status: Annotated[CaseStatus | None, typer.Option(help="Only cases in this status.")] = None,
    kind: Annotated[CaseKind | None, typer.Option(help="Only cases of this kind.")] = None,
    merchant: Annotated[str | None, typer.Option(help="Only this merchant's cases.")] = None,
    attention: Annotated[bool, typer.Option("--attention", help="Only cases that need a person.")] = False,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List the newest cases.

    Example: aftersales cases --status in_review
    """

    async def read() -> tuple[list[CaseSummary], int]:
        async with records() as db, db.read() as session:
            return await queries.newest_cases(
                session, status=status, kind=kind, merchant=merchant, attention=attention, limit=limit
            )

    found, more = asyncio.run(read())
    if as_json:
        json_lines(found)
    else:
        columns = ("case_no", "kind", "status", "order", "requested", "approved", "refunded", "deadline", "opened")
        table(f"{_count(found, 'case')}, newest first", columns, [_case_row(case) for case in found])
    _tell_more(more, limit)


def _case_row(case: CaseSummary) -> tuple[object, ...]:
    status = f"{case.status}: {case.attention}" if case.attention else case.status.value
    amounts = (money.show(amount, case.currency) for amount in (case.requested, case.approved, case.refunded))
    return (
        case.case_no, case.kind, status, case.order_id, *amounts,
        _minute(case.deadline), _minute(case.opened_at),
    )  # fmt: skip


def _minute(at: datetime | None) -> str:
    """A time in a list: UTC, to the minute; the year is in the case_no."""
    return f"{at:%m-%d %H:%M}" if at else ""


def stuck(
    cause: Annotated[str | None, typer.Option(help="Only cases stuck for this cause.")] = None,
    as_json: Json = False,
) -> None:
    """Show the cases that need a person, by cause, with what can be done.

    Example: aftersales stuck --cause refund_declined
    """
    if cause and cause not in CAUSES:
        raise Rejected(f"{cause!r} is no cause; there are {', '.join(CAUSES)}", field="--cause")

    async def read() -> list[StuckCase]:
        async with records() as db, db.read() as session:
            return await queries.stuck_cases(session, cause)

    found = asyncio.run(read())
    if as_json:
        json_lines(found)
    elif not found:
        console.print("no case needs a person")
    else:
        _show_stuck(found)


def _show_stuck(found: Sequence[StuckCase]) -> None:
    by_cause = {cause: list(some) for cause, some in groupby(sorted(found, key=lambda c: c.cause), lambda c: c.cause)}
    summary = [(cause, len(some), _at_risk(some), _minute(some[0].since)) for cause, some in by_cause.items()]
    table(f"{_count(found, 'case')} that need a person (times are UTC)", ("cause", "cases", "at risk", "oldest since"), summary)
    for cause, some in by_cause.items():
        first = some[0]
        console.print(f"\n{cause}", style="bold red", highlight=False)
        for line in (
            f"{first.en} · {first.zh}",
            f"do: {first.todo_en} · {first.todo_zh}",
            f"can: {', '.join(first.actions)}",
            f"look first: aftersales replay --cause {cause} --dry-run",
        ):
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        rows = [(c.case_no, c.step, _minute(c.since), money.show(c.at_risk, c.currency), c.detail) for c in some]
        table("", ("case_no", "step", "since", "at risk", "detail"), rows)
    console.print("\none of them whole, with the commands to type: aftersales case CASE_NO", highlight=False)


def _at_risk(some: Sequence[StuckCase]) -> str:
    sums: Counter[str] = Counter()
    for case in some:
        sums[case.currency] += case.at_risk
    return ", ".join(money.show(amount, currency) for currency, amount in sorted(sums.items()))


def orphans(as_json: Json = False) -> None:
    """Show the events that nobody can place, with units and amounts.

    Example: aftersales orphans --json
    """

    async def read() -> list[Orphan]:
        async with records() as db, db.read() as session:
            return await queries.orphans(session)

    found = asyncio.run(read())
    if as_json:
        json_lines(found)
        return
    if not found:
        console.print("the orphan pool is empty")
        return
    rows = [
        (o.id, _minute(o.received_at), o.type, f"{o.source} {o.event_id}", o.units, _amount(o.amount, o.currency), o.reason)
        for o in found
    ]
    table("the orphan pool", ("id", "received", "type", "source and event", "units", "amount", "reason"), rows)
    sums: Counter[str] = Counter()
    for orphan in found:
        sums[orphan.currency] += orphan.amount
    total = ", ".join(_amount(amount, currency) for currency, amount in sorted(sums.items()) if amount) or "no amount"
    console.print(f"total: {_count(found, 'event')}, {sum(o.units for o in found)} units, {total}", highlight=False)
    console.print("one of them whole: aftersales inbox --id ID", highlight=False)


def _amount(amount: int, currency: str) -> str:
    return money.show(amount, currency) if currency else ""


def inbox(
    state: Annotated[InboxState | None, typer.Option(help="Only events in this state; rejected shows why.")] = None,
    limit: Limit = 50,
    id_: Annotated[int | None, typer.Option("--id", help="Print the whole body of this row.")] = None,
    as_json: Json = False,
) -> None:
    """Show what came in and what became of it.

    Example: aftersales inbox --state rejected
    Example: aftersales inbox --id 17
    """
    if id_ is not None:
        console.file.write(_pretty(asyncio.run(_body(id_))) + "\n")
        return

    async def read() -> tuple[list[queries.InboxEntry], int]:
        async with records() as db, db.read() as session:
            return await queries.newest_events(session, state=state, limit=limit)

    found, more = asyncio.run(read())
    if as_json:
        json_lines(found)
    else:
        columns = ("id", "received", "type", "source and event", "state", "case", "reason")
        rows = [
            (e.id, e.received_at, e.type, f"{e.source} {e.event_id or ''}".strip(), e.state, e.case_id, e.reason) for e in found
        ]
        table(f"{_count(found, 'event')}, newest first", columns, rows)
    _tell_more(more, limit)


async def _body(row_id: int) -> str:
    async with records() as db, db.read() as session:
        return await queries.event_body(session, row_id)


def _pretty(body: str) -> str:
    """JSON to read; what was rejected for not being JSON, as a JSON text."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return json.dumps(body, ensure_ascii=False)


def audit(as_json: Json = False) -> None:
    """Check every invariant, in the records, at the providers and in the workflows; exit status 1 on any violation.

    Example: aftersales audit
    """

    async def check() -> list[Check]:
        async with desk() as (db, starter):
            return await audit_all(db, starter)

    checks = asyncio.run(check())
    violations = [violation for one in checks for violation in one.violations]
    if as_json:
        json_lines(one._asdict() for one in checks)
    else:
        rows = [(one.invariant, one.checked, len(one.violations)) for one in checks]
        table("audit", ("invariant", "checked", "violations"), rows)
        for violation in violations:
            errors.print(f"violated: {violation}", style="red", markup=False, highlight=False, soft_wrap=True)
        if not violations:
            console.print("clean", style="green")
    raise typer.Exit(1 if violations else 0)


def _count(found: Sequence[object], noun: str) -> str:
    return f"{len(found)} {noun}{'' if len(found) == 1 else 's'}"


def _tell_more(more: int, limit: int) -> None:
    if more:
        errors.print(f"… and {more} more: --limit {limit + more} shows all", highlight=False)
