"""Time and people (T…): deadlines that move, buyers who think again, people who decide, events told five times."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from db.inbox import InboxRow, InboxState
from db.models import NoteRow
from domain.cases import Action, CaseStatus, workflow_id
from domain.effects import EffectKind, EffectState
from domain.errors import Conflict
from domain.policy import Verdict
from engine import attributes
from engine.client import connect
from settings import Settings
from tests.conftest import POLICIES
from tests.desk import Desk, case_id, desk_on, event, fact, now, order_events, request_event

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEAR = [{"line_id": "1", "sku": "TEA-1", "quantity": 2, "amount": 200_000}]
"""Too much to be approved without a person."""
ALARM_BEFORE = timedelta(seconds=1.5)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """One stack for the whole file, with a person's word needed when goods are short; every test has an order of its own."""
    async with desk_with(tmp_path_factory.mktemp("time"), ("on_short: settle", "on_short: attention")) as running:
        yield running


def desk_with(folder: Path, changed: tuple[str, str]) -> Any:
    """A desk on the tests' policy with one rule changed."""
    rules = (POLICIES / "default.yaml").read_text("utf-8")
    assert changed[0] in rules
    (folder / "policies").mkdir()
    (folder / "policies" / "default.yaml").write_text(rules.replace(*changed), "utf-8")
    return desk_on(Settings(data_dir=folder / "data", policies=folder / "policies"))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A number of this test's own, for its order and references."""
    return f"{abs(hash(request.node.name)) % 10**10}"


# T1: the deadline moves -------------------------------------------------------------------------------------------------


async def in_review(desk: Desk, name: str, deadline: datetime | None = None) -> str:
    await desk.order(f"O{name}", lines=DEAR)
    case = await desk.request(f"O{name}", f"R{name}", **({"deadline": deadline.isoformat()} if deadline else {}))
    await desk.status(case, CaseStatus.in_review)
    return case


async def move_deadline(desk: Desk, name: str, deadline: datetime) -> None:
    told = fact("aftersale.deadline_changed", f"R{name}", deadline=deadline.isoformat(), changed_at=now().isoformat())
    assert [answer["status"] for answer in await desk.tell(told)] == ["accepted"]


async def notes(desk: Desk, case: str) -> dict[str, datetime]:
    """When each kind of thing last happened to the case, by the workflow's clock."""
    async with desk.stack.db.read() as session:
        rows = await session.scalars(select(NoteRow).where(NoteRow.case_id == case).order_by(NoteRow.seq))
        return {row.step: row.at for row in rows}


async def shown_deadline(desk: Desk, case: str) -> datetime | None:
    """The deadline by which Temporal finds the case."""
    client = await connect(desk.stack.settings, address=desk.stack.server.address)
    found = await client.get_workflow_handle(workflow_id(case)).describe()
    return found.typed_search_attributes.get(attributes.DEADLINE)


@pytest.mark.parametrize(("first", "then"), [(3.0, 5.0), (60.0, 3.0)], ids=["later", "earlier"])
async def test_t1_a_moved_deadline_moves_the_end_and_the_alarm_before_it(
    desk: Desk, name: str, first: float, then: float
) -> None:
    begun = now()
    case = await in_review(desk, name, begun + timedelta(seconds=first))
    moved = begun + timedelta(seconds=then)
    await move_deadline(desk, name, moved)

    async def rearmed() -> bool:
        return (await desk.case(case)).deadline == moved and await shown_deadline(desk, case) == moved

    await desk.until(rearmed, within=2, what=lambda: "the deadline to show")
    await desk.until(lambda: desk.messages(case))
    assert await desk.messages(case) == [("deadline_near", "merchant", 1)]
    assert (await desk.case(case)).status is CaseStatus.in_review, "the alarm came too late"
    await desk.status(case, CaseStatus.attention)

    when = await notes(desk, case)
    assert moved - ALARM_BEFORE <= when["deadline.mark"] < moved <= when["attention.review_overdue"]
    assert when["attention.review_overdue"] - moved < timedelta(seconds=1)
    await desk.decide(case, Verdict.decline)
    await desk.status(case, CaseStatus.declined)
    await desk.check_audit()
