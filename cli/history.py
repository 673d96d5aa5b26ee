"""How a case came to where it is: `history`, from the workflow's own history on the Temporal server."""

import asyncio
from datetime import UTC, datetime, timedelta

import typer

from cli.context import CaseName, Json, records, settings
from cli.output import console, json_lines, table
from db import cases
from db.models import Case
from domain.cases import CaseStatus, workflow_id
from engine.client import connect
from engine.history import tell
from engine.steps import Step, StepState

_OPEN = (StepState.running, StepState.waiting)
_WAITS_FOR = {
    CaseStatus.open: "the next step",
    CaseStatus.awaiting_customer: "the buyer to send the goods",
    CaseStatus.awaiting_warehouse: "the warehouse",
    CaseStatus.awaiting_settlement: "the payment provider to confirm",
    CaseStatus.in_review: "a person to decide",
    CaseStatus.attention: "a person",
}


def add_to(app: typer.Typer) -> None:
    app.command()(history)


def history(name: CaseName, as_json: Json = False) -> None:
    """Tell how a case came to where it is: every step with its tries, errors, waits, facts and people's words.

    The last line says what it waits for now, and until when.

    Example: aftersales history AS-2026-000012
    """
    case, steps = asyncio.run(_read(name))
    steps += [] if case.closed_at else [_now(case)]
    if as_json:
        json_lines(steps)
        return
    columns = ("at (UTC)", "what happened", "by", "tries", "took", "detail")
    # The clean writes to our own tables say nothing that the steps around them do not.
    rows = [_row(step) for step in steps[: None if case.closed_at else -1] if not _is_plain_store(step)]
    table(f"{case.case_no}  {workflow_id(case.case_id)}", columns, rows)
    if not case.closed_at:
        console.print(f"\n{_line(steps[-1])}", style="bold", markup=False, highlight=False, soft_wrap=True)
        console.print(f"next: aftersales case {case.case_no}", markup=False, highlight=False)


async def _read(name: str) -> tuple[Case, list[Step]]:
    found = settings()
    async with records(found) as db, db.read() as session:
        case = await cases.named(session, name)
    return case, await tell(await connect(found), workflow_id(case.case_id))


def _now(case: Case) -> Step:
    """What the case waits for, as the records show it."""
    detail = f"{case.attention.step}: {case.attention.cause} {case.attention.detail}".strip() if case.attention else ""
    return Step(
        at=datetime.now(UTC),
        step="now",
        what=f"{case.status}: waits for {_WAITS_FOR[case.status]}",
        state=StepState.waiting,
        detail=detail,
        until=case.deadline,
    )


def _is_plain_store(step: Step) -> bool:
    return step.step == "store" and step.state is StepState.done and step.attempts == 1


def _row(step: Step) -> tuple[object, ...]:
    took = lasted(timedelta(seconds=step.duration_seconds)) if step.duration_seconds is not None else ""
    if step.state in _OPEN:
        took = step.state.value
    tries = str(step.attempts) if step.attempts > 1 else ""
    until = ""
    if step.until and step.state in _OPEN:
        until = f"{'until' if step.step == 'wait' else 'tried again at'} {step.until:%Y-%m-%d %H:%M:%S}"
    detail = "; ".join(part for part in (step.detail, step.error, until) if part)
    return step.at, step.what, "" if step.actor == "system" else step.actor, tries, took, detail


def _line(step: Step) -> str:
    until = f", until {step.until:%Y-%m-%d %H:%M:%S} UTC" if step.until else ""
    return f"now {step.what}{until}" + (f" ({step.detail})" if step.detail else "")


def lasted(span: timedelta) -> str:
    """For people: `0.06 s`, `4 min 20 s`, `3 h 5 min`, `2 d 4 h`."""
    seconds = span.total_seconds()
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    for size, big, part, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{int(seconds // size)} {big} {int(seconds % size // part)} {small}"
    raise AssertionError(span)
