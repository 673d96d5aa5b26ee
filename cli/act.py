"""What people do to a case: `decide` one in review, `replay` those that cannot go on by themselves."""

import asyncio
import getpass
import os
from typing import Annotated

import typer
from sqlalchemy import select

from cli.context import CaseName, Json, desk
from cli.output import console, errors, json_lines, table
from db import cases, effects
from db.models import Case, EffectRow
from db.session import Database
from domain import money
from domain.attention import CAUSES
from domain.cases import Action, Model
from domain.effects import LIVE, OPEN, EffectKind, EffectState, Outcome
from domain.errors import AftersalesError, Rejected
from domain.policy import Verdict
from domain.resolution import Judgement, Resolution
from starter import Starter

By = Annotated[str | None, typer.Option(help="Who acts; else $AFTERSALES_USER, else the login name.")]
Reason = Annotated[str, typer.Option(help="Why; it stays in the case's history.")]


def add_to(app: typer.Typer) -> None:
    app.command()(decide)
    app.command()(replay)


def decide(
    case: CaseName,
    verdict: Annotated[str, typer.Argument(help="approve or decline")],
    reason: Reason,
    by: By = None,
) -> None:
    """Decide a case in review.

    Example: aftersales decide AS-2026-000012 approve --reason "photos show the crack"
    """
    if verdict not in (Verdict.approve, Verdict.decline):
        raise Rejected(f"{verdict!r} is neither approve nor decline", field="VERDICT")
    judgement = Judgement(verdict=Verdict(verdict), by=_person(by), reason=_said(reason))
    asyncio.run(_decide(case, judgement))


async def _decide(name: str, judgement: Judgement) -> None:
    async with desk() as (db, starter):
        async with db.read() as session:
            found = await cases.named(session, name)
        await starter.decide(found.case_id, judgement)
        console.print(f"{found.case_no}: {judgement.verdict} by {judgement.by}", markup=False)


class Standing(Model):
    """What is known of a stuck case before anything is done. Amounts are minor units; `moved` and `owed` as the providers
    say it now, `in_doubt` where they do not say."""

    case_id: str
    case_no: str
    cause: str
    detail: str
    currency: str
    approved: int
    moved: int
    in_doubt: int
    owed: int
    keys: list[str]
    next_key: str
    will: str
    refused: str = ""


def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID…", help="Case ids or case_nos.")] = None,
    cause: Annotated[str | None, typer.Option(help="All cases stuck for this cause (see `aftersales stuck`).")] = None,
    action: Annotated[Action | None, typer.Option(help="What to do.")] = None,
    reason: Annotated[str, typer.Option(help="Why; it stays in the case's history. Needed unless --dry-run.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what moved, what is owed, what would happen.")] = False,
    max_cases: Annotated[int, typer.Option(help="Refuse to act on more cases than this.")] = 50,
    voucher: Annotated[str, typer.Option(help="settle-by-hand: the voucher's number.")] = "",
    amount: Annotated[int | None, typer.Option(help="amend: refund this much in all, in minor units.")] = None,
    tender: Annotated[str | None, typer.Option(help="amend: refund over this tender first.")] = None,
    recipient: Annotated[str | None, typer.Option(help="amend: tell the buyer at this address.")] = None,
    waive: Annotated[bool, typer.Option("--waive", help="amend: go on without the step that is stuck.")] = False,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Act on cases that cannot go on by themselves; look first with --dry-run.

    Example: aftersales replay --cause outcome_unknown --dry-run
    Example: aftersales replay AS-2026-000012 --action retry --reason "provider is back"

    Exit status 1 if any case refused; each result stands by itself, and doing it again repeats nothing.
    """
    resolution = None
    if not dry_run:
        resolution = _resolution(action, reason, by, voucher, amount, tender, recipient, waive)
    if not ids and not cause:
        raise Rejected("name cases, or a --cause", field="ID")
    if cause and cause not in CAUSES:
        raise Rejected(f"{cause!r} is no cause; there are {', '.join(CAUSES)}", field="--cause")
    failed = asyncio.run(_replay(ids or [], cause, resolution, action, max_cases, as_json=as_json))
    raise typer.Exit(1 if failed else 0)


def _resolution(
    action: Action | None,
    reason: str,
    by: str | None,
    voucher: str,
    amount: int | None,
    tender: str | None,
    recipient: str | None,
    waive: bool,
) -> Resolution:
    if action is None:
        raise Rejected("is required (or --dry-run)", field="--action")
    resolution = Resolution(
        action=action, by=_person(by), reason=_said(reason), voucher=voucher,
        amount=amount, tender_id=tender, recipient=recipient, waive=waive,
    )  # fmt: skip
    if action is Action.amend and not resolution.amends:
        raise Rejected("needs --amount, --tender, --recipient or --waive", field="--action amend")
    if action is not Action.amend and resolution.amends:
        raise Rejected("--amount, --tender, --recipient and --waive go with amend", field=f"--action {action}")
    if action is Action.settle_by_hand and not voucher:
        raise Rejected("settle-by-hand needs the voucher's number", field="--voucher")
    return resolution


async def _replay(
    ids: list[str], cause: str | None, resolution: Resolution | None, action: Action | None, max_cases: int, *, as_json: bool
) -> int:
    """How many cases refused."""
    async with desk() as (db, starter):
        async with db.read() as session:
            found = [await cases.named(session, name) for name in ids]
            if cause:
                query = select(Case).where(Case.attention_cause == cause).order_by(Case.number)
                found += [case for case in await session.scalars(query) if case.case_id not in {c.case_id for c in found}]
        if resolution is None:
            _show(await standings(db, starter, found, action), as_json=as_json)
            return 0
        if len(found) > max_cases:
            raise Rejected(f"{len(found)} cases, more than --max-cases {max_cases}", field="--cause")
        return sum([not await _resolve(starter, case, resolution, as_json=as_json) for case in found])


async def _resolve(starter: Starter, case: Case, resolution: Resolution, *, as_json: bool) -> bool:
    """Whether the case took it; each result is told by itself."""
    try:
        await starter.resolve(case.case_id, resolution)
    except AftersalesError as error:
        result = {"case_no": case.case_no, "case_id": case.case_id, "done": False, "reason": str(error)}
    else:
        result = {"case_no": case.case_no, "case_id": case.case_id, "done": True, "action": resolution.action.value}
    if as_json:
        json_lines([result])
    else:
        out = console if result["done"] else errors
        out.print(f"{case.case_no}: {result.get('reason') or resolution.action}", markup=False, highlight=False, soft_wrap=True)
    return bool(result["done"])


async def standings(db: Database, starter: Starter, found: list[Case], action: Action | None) -> list[Standing]:
    """What the providers say now of each case's refund, and what `action` (default: retry) would do."""
    async with db.read() as session:
        rows = {case.case_id: await effects.of_case(session, case.case_id, EffectKind.refund) for case in found}
    called = [row.key for some in rows.values() for row in some if row.calls and not row.by_hand]
    said = await starter.ask_providers(called) if called else {}
    return [_standing(case, list(rows[case.case_id]), said, action or Action.retry) for case in found]


def _standing(case: Case, rows: list[EffectRow], said: dict[str, Outcome], action: Action) -> Standing:
    states = {row.key: _state(row, said) for row in rows}
    moved = sum(row.amount or 0 for row in rows if states[row.key] is EffectState.succeeded)
    in_doubt = sum(row.amount or 0 for row in rows if states[row.key] in OPEN)
    again = [row.key for row in rows if states[row.key] in LIVE and states[row.key] is not EffectState.succeeded]
    next_round = max((row.round or 0 for row in rows), default=0) + 1
    attention = case.attention
    refused = "" if attention and action in attention.actions else f"{case.status} does not allow {action}"
    return Standing(
        case_id=case.case_id,
        case_no=case.case_no,
        cause=attention.cause if attention else "",
        detail=attention.detail if attention else "",
        currency=case.currency,
        approved=case.approved,
        moved=moved,
        in_doubt=in_doubt,
        owed=max(0, case.approved - moved - in_doubt),
        keys=[f"{row.key}: {states[row.key]}" for row in rows],
        next_key=", ".join(again) or f"refund:{case.case_id}:<tender>:{next_round}",
        will=_will(action, attention.cause if attention else "", money=bool(rows)),
        refused=refused,
    )


def _state(row: EffectRow, said: dict[str, Outcome]) -> EffectState:
    """The provider's word where it has one; else ours."""
    theirs = said.get(row.key)
    return row.state if theirs is None or theirs.state is EffectState.unknown else theirs.state


def _will(action: Action, cause: str, *, money: bool) -> str:
    if action is Action.retry and cause == "outcome_unknown":
        return "look up once more; if the provider still does not show it, send the same key again"
    if action is Action.retry and cause == "refund_overdue":
        return "go on waiting for the provider, and looking it up; nothing is sent"
    if action is Action.retry:
        return "submit what is owed under the next key" if money else "do the step again under the same key"
    return {
        Action.amend: "go on with what is amended; what moved stays moved",
        Action.settle_by_hand: "book what is owed against the voucher; nothing is sent to the provider",
        Action.abandon: "end the case; what was granted and not moved is taken back",
    }[action]


def _show(found: list[Standing], *, as_json: bool) -> None:
    if as_json:
        json_lines(found)
        return
    columns = ("case_no", "cause", "moved", "in doubt", "owed", "keys, as the provider says", "next key", "what will happen")
    rows = [
        (
            one.case_no,
            one.cause,
            *(money.show(value, one.currency) for value in (one.moved, one.in_doubt, one.owed)),
            "\n".join(one.keys),
            one.next_key,
            one.refused or one.will,
        )
        for one in found
    ]
    table(f"dry run: {len(rows)} cases, nothing was done", columns, rows)


def _person(by: str | None) -> str:
    return (by or os.environ.get("AFTERSALES_USER") or getpass.getuser())[:80]


def _said(reason: str) -> str:
    if not reason.strip():
        raise Rejected("is required: it stays in the case's history", field="--reason")
    return reason.strip()[:500]
