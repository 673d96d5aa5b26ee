"""One case whole, and the exact commands that move it on: `case`."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime

import typer

from cli.context import CaseName, Json, records
from cli.output import console, json_lines, table, text
from db import case_page as pages
from db.case_page import CasePage, PageLine
from domain import money
from domain.cases import OUTCOMES, Action, CaseStatus
from domain.effects import EffectKind
from domain.ledger import CHART

_REASON = '--reason "…"'
_WAIVABLE = frozenset({"stop_shipment", "rma", "cancel_rma", "receive"})
"""Steps that a case can go on without."""


class PageWithCommands(CasePage):
    commands: tuple[str, ...]


def add_to(app: typer.Typer) -> None:
    app.command()(case)


def case(name: CaseName, as_json: Json = False) -> None:
    """Show a case whole: lines, decision, tracks, money, goods, messages, books, timeline, and what to type next.

    Example: aftersales case AS-2026-000012
    """

    async def read() -> CasePage:
        async with records() as db, db.read() as session:
            return await pages.case_page(session, name)

    page = asyncio.run(read())
    if as_json:
        json_lines([PageWithCommands(**dict(page), commands=tuple(commands(page)))])
    else:
        _show(page)


def commands(page: CasePage) -> Iterator[str]:
    """What can be typed about this case now, word for word; `…` and capitals are to be filled in."""
    if page.status is CaseStatus.in_review or (page.needs and page.needs.cause == "review_overdue"):
        yield f"aftersales decide {page.case_no} approve {_REASON}"
        yield f"aftersales decide {page.case_no} decline {_REASON}"
    if page.needs:
        replay = f"aftersales replay {page.case_no}"
        yield f"{replay} --dry-run"
        for action in page.needs.actions:
            for more in _options(page, action):
                yield " ".join(part for part in (replay, "--action", action, more, _REASON) if part)
    yield f"aftersales history {page.case_no}"


def _options(page: CasePage, action: Action) -> list[str]:
    """The options of each way to take an action on the step that is stuck; none where there is no such way."""
    assert page.needs is not None
    if action is Action.settle_by_hand:
        return ["--voucher NUMBER"]
    if action is not Action.amend:
        return [""]
    if page.needs.step == "tell":
        return ["--recipient ADDRESS"]
    if page.needs.step in _WAIVABLE:
        return ["--waive"]
    if page.needs.cause == "tenders_exhausted":
        return ["--amount MINOR_UNITS"]
    tried = {effect.key.split(":")[-2] for effect in page.effects if effect.kind is EffectKind.refund}
    return [f"--tender {tender.tender_id}" for tender in page.tenders if tender.left > 0 and tender.tender_id not in tried]


def _show(page: CasePage) -> None:
    _headline(page)
    _next(page)
    _lines(page)
    _effects(page)
    _goods(page)
    _books(page)
    rows = [(note.at, note.step, "" if note.actor == "system" else note.actor, note.text) for note in page.timeline]
    _section("timeline (UTC)", ("at", "step", "by", "what"), rows)


def _headline(page: CasePage) -> None:
    def shown(amount: int) -> str:
        return money.show(amount, page.currency)

    _say(f"{page.case_no}  {page.kind}  {page.status}", style="bold")
    _say(f"{page.case_id}, order {page.order_id}, reason {page.reason}")
    opened = f"opened {text(page.opened_at)}"
    ended = f", closed {text(page.closed_at)}" if page.closed_at else ""
    due = f", due {text(page.deadline)}" if page.deadline else ""
    _say(f"{opened}{ended}{due} (UTC)")
    _say(f"requested {shown(page.requested)}, approved {shown(page.approved)}, refunded {shown(page.refunded)}")
    _say("tracks: " + ", ".join(f"{name} {state}" for name, state in page.tracks))
    if decision := page.decision:
        why = f": {decision.reason}" if decision.reason else ""
        _say(f"decision: {decision.verdict} by {decision.by}{why} ({decision.policy} {decision.version}, rule {decision.rule})")
        asked = decision.inputs
        _say(
            f"  from: requested {shown(asked.requested)}, approvable {shown(asked.approved)},"
            f" delivered {_day(asked.delivered_at)}, asked {_day(asked.requested_at)},"
            f" the buyer's requests {asked.buyer_requests} for {shown(asked.buyer_amount)}"
            + (", units already taken" if asked.nothing_left else "")
        )


def _next(page: CasePage) -> None:
    if needs := page.needs:
        _say(f"\nneeds a person since {text(needs.since)}: {needs.cause} at {needs.step}", style="bold red")
        for line in (needs.detail, f"{needs.en} · {needs.zh}", f"do: {needs.todo_en} · {needs.todo_zh}"):
            if line:
                _say(f"  {line}")
    if page.status not in OUTCOMES:
        _say("\nto type next:", style="bold")
        for command in commands(page):
            _say(f"  {command}")


def _lines(page: CasePage) -> None:
    columns = ("line", "sku", "title", "asked", "amount", "claim", "units", "claimed", "received", "missing")
    rows = [
        (
            line.line_id, line.sku, line.title, line.asked, money.show(line.asked_amount, page.currency), line.claim,
            line.claimed, money.show(line.claimed_amount, page.currency), _received(line), line.missing,
        )
        for line in page.lines
    ]  # fmt: skip
    _section("lines", columns, rows)


def _received(line: PageLine) -> str:
    return ", ".join(f"{units} {grade}" for grade, units in line.received.items())


def _effects(page: CasePage) -> None:
    rows = [
        (
            effect.key, effect.state, effect.calls, "" if effect.amount is None else money.show(effect.amount, page.currency),
            effect.reference, f"{effect.cause} {effect.detail}".strip(),
        )
        for effect in page.effects
    ]  # fmt: skip
    _section("effects", ("key", "state", "calls", "amount", "reference", "what they said"), rows)
    told = [(message.at, message.template, message.recipient, message.state, message.detail) for message in page.messages]
    _section("messages", ("at", "template", "to", "state", "detail"), told)


def _goods(page: CasePage) -> None:
    _section("parcels", ("waybill", "sent"), [(parcel.waybill, parcel.sent_at) for parcel in page.parcels])
    rows = [
        (
            receipt.received_at, receipt.receipt_id, receipt.waybill,
            ", ".join(f"{line.quantity} × {line.line_id} {line.grade}" for line in receipt.lines),
            "" if receipt.counts else "corrected, counts no more",
        )
        for receipt in page.receipts
    ]  # fmt: skip
    _section("receipts", ("at", "receipt", "waybill", "counted", ""), rows)


def _books(page: CasePage) -> None:
    rows = []
    for entry in page.entries:
        for line in entry.lines:
            first = line is entry.lines[0]
            amount = money.show(line.amount, entry.currency)
            rows.append((entry.at if first else None, entry.text if first else None, CHART[line.account][0], amount))
    _section("books (debit +, credit -)", ("at", "entry", "account", "amount"), rows)


def _section(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    if rows:
        console.print()
        table(title, columns, rows)


def _say(line: str, style: str | None = None) -> None:
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _day(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d}" if at else "not yet"
