"""`aftersales demo`: a shop's day played against a fresh embedded stack, watched as it goes, and audited at the end."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import func, select

from adapters.platforms.online_retail import Envelope
from cli.audit import audit
from cli.output import console, table
from cli.shop import CURRENCY, Fault, Script, play
from cli.stack import Stack, stack
from db.audit import Check
from db.models import Case, EntryLineRow, EntryRow
from domain import money
from domain.attention import CAUSES
from domain.cases import OUTCOMES, CaseStatus
from domain.errors import Conflict
from domain.ledger import Account
from domain.policy import Verdict
from domain.resolution import Judgement
from engine.logs import configure
from settings import Settings

_LONGEST = 150.0
"""Seconds after which the demo stops waiting for what does not need a person."""
_REVIEWER = "demo reviewer"


async def play_demo(keep: Path | None) -> bool:
    """Play, watch, sum up; True if the audit is clean."""
    folder = keep or Path(tempfile.mkdtemp(prefix="aftersales-demo-"))
    settings = Settings(data_dir=folder, policies=_examples() / "policies", database_url="", log_level="error")
    configure(settings)
    script = play(datetime.now(UTC))
    console.print(f"A day of the shop Lanhua, days scaled to seconds; everything is kept in {folder}", soft_wrap=True)
    async with stack(settings, settle_seconds=0.3, auto_receive_seconds=None) as running:
        watching = Progress(
            TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        sent = watching.add_task("told", total=len(script.steps))
        ended = watching.add_task("cases ended", total=None)
        with Live(watching, console=console, refresh_per_second=4) as live:
            player = asyncio.create_task(_play(running, script, lambda: watching.advance(sent)))
            await _watch(running, player, watching, ended, live)
            await player
        checks = await audit(running.db, running.starter)
        await _sum_up(running, checks, folder)
    return not any(check.violations for check in checks)


def _examples() -> Path:
    return Path(__file__).parent.parent / "examples"


async def _play(running: Stack, script: Script, told: Callable[[], None]) -> None:
    """Send every step at its time: events to the intake, faults and plans to the sandbox."""
    start = time.monotonic()
    async with httpx.AsyncClient(timeout=30) as http:
        for step in script.steps:
            await asyncio.sleep(max(0.0, start + step.at - time.monotonic()))
            if isinstance(step.what, Envelope):
                answer = await http.post(f"{running.intake_url}/events", json=step.what.as_cloudevent())
                assert answer.status_code < 500, answer.text
            else:
                path = "/faults" if isinstance(step.what, Fault) else "/warehouse/plans"
                body = step.what.model_dump(mode="json")
                (await http.post(f"{running.sandbox_url}{path}", json=body)).raise_for_status()
            told()


async def _watch(running: Stack, player: "asyncio.Task[None]", watching: Progress, ended: TaskID, live: Live) -> None:
    """Show how the cases go until each has ended or needs a person; a reviewer decides some of those in review."""
    end = time.monotonic() + _LONGEST
    while time.monotonic() < end:
        async with running.db.read() as session:
            rows = (await session.execute(select(Case.case_id, Case.status, Case.requested).order_by(Case.number))).all()
        counts = Counter(status for _, status, _ in rows)
        done = sum(counts[status] for status in OUTCOMES)
        watching.update(ended, completed=done, total=len(rows) or None)
        live.update(Group(watching, _counts(counts)))
        if player.done() and done + counts[CaseStatus.attention] == len(rows):
            return
        await _review(running, [(case_id, asked) for case_id, status, asked in rows if status is CaseStatus.in_review])
        await asyncio.sleep(0.5)


async def _review(running: Stack, waiting: Sequence[tuple[str, int]]) -> None:
    """Two of three requests in review are decided; the third waits until nobody decided it in time."""
    for case_id, asked in waiting:
        if sum(case_id.encode()) % 3:
            verdict = Verdict.approve if asked < 150_000 else Verdict.decline
            judgement = Judgement(verdict=verdict, by=_REVIEWER, reason="looked at the photos")
            try:
                await running.starter.decide(case_id, judgement)
            except Conflict:
                continue  # withdrawn or expired meanwhile


def _counts(counts: Counter[CaseStatus]) -> Table:
    shown = Table.grid(padding=(0, 2))
    for status in CaseStatus:
        if counts[status]:
            shown.add_row(f"{counts[status]:>4}", status.value)
    return shown


async def _sum_up(running: Stack, checks: list[Check], folder: Path) -> None:
    async with running.db.read() as session:
        cases = (await session.scalars(select(Case).order_by(Case.number))).all()
        payable = (
            select(EntryRow.key.like("grant:%"), func.sum(EntryLineRow.amount))
            .join(EntryRow, EntryRow.key == EntryLineRow.entry_key)
            .where(EntryLineRow.account == Account.refunds_payable)
            .group_by(EntryRow.key.like("grant:%"))
        )
        booked = {bool(is_grant): int(total or 0) for is_grant, total in (await session.execute(payable)).all()}
    _show_cases(cases)
    granted, moved = -booked.get(True, 0), booked.get(False, 0)
    amounts = [("granted", granted), ("moved", moved), ("still payable", granted - moved)]
    table("money", ("", "amount"), [(name, money.show(amount, CURRENCY)) for name, amount in amounts])
    stuck = Counter(case.attention_cause for case in cases if case.attention_cause).most_common()
    causes = [(count, cause, f"{CAUSES[cause].en} · {CAUSES[cause].zh}") for cause, count in stuck if cause]
    table("needs a person", ("cases", "cause", "what happened"), causes)
    table("audit", ("checked", "violations", "invariant"), [(c.checked, len(c.violations), c.invariant) for c in checks])
    violations = [violation for check in checks for violation in check.violations]
    for violation in violations:
        console.print(f"  violation: {violation}", style="red", markup=False, soft_wrap=True)
    console.print("the audit is clean" if not violations else f"the audit found {len(violations)} violations", style="bold")
    for line in (
        "",
        "look at it, and act on it:",
        f"  export AFTERSALES_DATA_DIR={folder} AFTERSALES_POLICIES={_examples() / 'policies'}",
        "  .venv/bin/aftersales stuck        # what needs a person, and what can be done",
        "  .venv/bin/aftersales cases",
        "  .venv/bin/aftersales up           # in another terminal; then: aftersales replay --cause … --dry-run",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _show_cases(cases: Sequence[Case]) -> None:
    kinds = sorted({case.kind for case in cases})
    counts = Counter((case.status, case.kind) for case in cases)
    seen = [status for status in CaseStatus if any(counts[status, kind] for kind in kinds)]
    rows = [(status.value, *(counts[status, kind] for kind in kinds)) for status in seen]
    rows.append(("in all", *(sum(counts[status, kind] for status in seen) for kind in kinds)))
    table(f"{len(cases)} cases", ("outcome", *(kind.value for kind in kinds)), rows)
