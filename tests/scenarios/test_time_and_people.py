"""Time and people (T…): deadlines that move, buyers who think again, people who decide, events told five times."""

import asyncio
import itertools
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
import pytest_asyncio
from sqlalchemy import select
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType, ResetReapplyExcludeType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client

from db.models import InboxRow, InboxState, NoteRow
from domain.cases import CaseStatus, CaseView, workflow_id
from domain.effects import EffectKind, EffectState
from domain.errors import Conflict, NotFound
from domain.policy import Verdict
from engine import attributes
from engine.client import connect
from settings import Settings
from tests.conftest import POLICIES
from tests.desk import Desk, case_id, counted, desk_on, fact, now, order_events, receipt_event, request_event

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEAR = [{"line_id": "1", "sku": "TEA-1", "quantity": 2, "amount": 200_000}]
"""Too much to be approved without a person."""
ALARM_BEFORE = timedelta(seconds=1.5)
_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """One stack for the whole file, every test with an order of its own. Short goods need a person here; on the channel
    `douyin` a review that nobody decides is approved."""
    folder = tmp_path_factory.mktemp("time")
    (folder / "policies").mkdir()
    rules = (POLICIES / "default.yaml").read_text("utf-8").replace("on_short: settle", "on_short: attention")
    approving = rules.replace("on_expiry: attention", "on_expiry: approve")
    assert len({rules, approving}) == 2
    (folder / "policies" / "default.yaml").write_text(rules, "utf-8")
    (folder / "policies" / "douyin.yaml").write_text(f"channel: douyin\n{approving}", "utf-8")
    async with desk_on(Settings(data_dir=folder / "data", policies=folder / "policies")) as running:
        yield running


@pytest.fixture
def n() -> int:
    """A number of this test's own, for its order `O…` and its case `R…`."""
    return next(_numbers)


# T1: the deadline moves -------------------------------------------------------------------------------------------------


async def in_review(desk: Desk, n: int, **more: str) -> str:
    await desk.order(f"O{n}", lines=DEAR)
    case = await desk.request(f"O{n}", f"R{n}", **more)
    await desk.status(case, CaseStatus.in_review)
    return case


async def move_deadline(desk: Desk, n: int, deadline: datetime) -> None:
    told = fact("aftersale.deadline_changed", f"R{n}", deadline=deadline.isoformat(), changed_at=now().isoformat())
    assert [answer["status"] for answer in await desk.tell(told)] == ["accepted"]


async def notes(desk: Desk, case: str) -> dict[str, NoteRow]:
    """The last note of each kind in the case's timeline."""
    async with desk.stack.db.read() as session:
        rows = await session.scalars(select(NoteRow).where(NoteRow.case_id == case).order_by(NoteRow.seq))
        return {row.step: row for row in rows}


async def client_of(desk: Desk) -> Client:
    return await connect(desk.stack.settings, address=desk.stack.server.address)


@pytest.mark.parametrize(("first", "then"), [(3.0, 5.0), (60.0, 3.0)], ids=["later", "earlier"])
async def test_t1_a_moved_deadline_moves_the_end_and_the_alarm_before_it(desk: Desk, n: int, first: float, then: float) -> None:
    begun = now()
    case = await in_review(desk, n, deadline=(begun + timedelta(seconds=first)).isoformat())
    moved = begun + timedelta(seconds=then)
    await move_deadline(desk, n, moved)
    workflow = (await client_of(desk)).get_workflow_handle(workflow_id(case))

    async def rearmed() -> bool:
        searched = (await workflow.describe()).typed_search_attributes.get(attributes.DEADLINE)
        return (await desk.case(case)).deadline == searched == moved

    await desk.until(rearmed, within=2, what=lambda: "the deadline to show")
    await desk.until(lambda: desk.messages(case))
    assert await desk.messages(case) == [("deadline_near", "merchant", 1)]
    assert (await desk.case(case)).status is CaseStatus.in_review, "the alarm came too late"
    await desk.status(case, CaseStatus.attention)

    happened = await notes(desk, case)
    alarm, end = happened["deadline.mark"].at, happened["attention.review_overdue"].at
    assert moved - ALARM_BEFORE <= alarm < moved <= end < moved + timedelta(seconds=1)
    await desk.decide(case, Verdict.decline)
    await desk.status(case, CaseStatus.declined)
    await desk.check_audit()


async def test_t1_a_deadline_moved_into_the_past_ends_the_review_at_once(desk: Desk, n: int) -> None:
    case = await in_review(desk, n, deadline=(now() + timedelta(seconds=60)).isoformat())
    await move_deadline(desk, n, now() - timedelta(seconds=5))
    overdue = await desk.status(case, CaseStatus.attention, within=3)
    assert overdue.attention and overdue.attention.cause == "review_overdue"
    assert ("deadline_near", "merchant", 1) in await desk.messages(case)
    await desk.check_audit()


async def test_t1_what_nobody_decided_is_approved_where_the_policy_says_so(desk: Desk, n: int) -> None:
    elsewhere = {"channel": "douyin"}
    orders = [told | {"data": told["data"] | elsewhere} for told in order_events(f"O{n}", lines=DEAR)]
    await desk.tell(*orders, request_event(f"O{n}", f"R{n}", **elsewhere))
    case = f"lanhua:douyin:R{n}"

    ended = await desk.status(case, CaseStatus.completed)

    assert (ended.refunded, ended.decision and ended.decision.by) == (100_000, "policy")
    assert await desk.messages(case) == [("deadline_near", "merchant", 1), ("refund_paid", "buyer", 1)]
    await desk.check_audit()


# People decide ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "outcome", "paid", "message"),
    [
        (Verdict.approve, CaseStatus.completed, [100_000], "refund_paid"),
        (Verdict.decline, CaseStatus.declined, [], "declined"),
    ],
)
async def test_a_person_decides_and_who_and_why_is_kept(
    desk: Desk, n: int, verdict: Verdict, outcome: CaseStatus, paid: list[int], message: str
) -> None:
    case = await in_review(desk, n)
    await desk.decide(case, verdict, by="wang")
    ended = await desk.status(case, outcome)

    assert ended.decision and (ended.decision.verdict, ended.decision.by) == (verdict, "wang")
    said = (await notes(desk, case))[f"person.{verdict}"]
    assert (said.actor, said.text) == ("wang", "seen the photos")
    assert [one["amount"] for one in await desk.refunds_of(f"pay-O{n}")] == paid
    assert await desk.messages(case) == [(message, "buyer", 1)]
    await desk.check_audit()


async def test_of_two_people_who_decide_at_once_one_is_told_that_it_is_decided(desk: Desk, n: int) -> None:
    case = await in_review(desk, n)
    said = await asyncio.gather(
        desk.decide(case, Verdict.approve, by="li"), desk.decide(case, Verdict.decline, by="wang"), return_exceptions=True
    )
    [refused] = [answer for answer in said if answer is not None]
    assert isinstance(refused, Conflict)
    assert "decided already" in str(refused)
    ended = await desk.status(case, CaseStatus.completed, CaseStatus.declined)
    assert ended.decision and ended.decision.by == ("li" if isinstance(said[1], Conflict) else "wang")
    await desk.check_audit()


async def test_only_a_case_in_review_can_be_decided(desk: Desk, n: int) -> None:
    await desk.order(f"O{n}")
    waiting = await desk.request(f"O{n}", f"R{n}", kind="return")
    await desk.status(waiting, CaseStatus.awaiting_customer)
    with pytest.raises(Conflict, match="not in review but awaiting_customer"):
        await desk.decide(waiting, Verdict.approve)
    ended = await desk.request(f"O{n}", f"S{n}")
    await desk.status(ended, CaseStatus.completed)
    with pytest.raises((Conflict, NotFound)):
        await desk.decide(ended, Verdict.decline)


# T2: the buyer thinks again ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A point at which a case waits: how it gets there, and what shows that it did (a status, or a cause of attention)."""

    kind: str
    shows: str
    dear: bool = False
    shipped: bool = True
    fault: str = ""
    facts: tuple[str, ...] = ()
    rma: str = ""
    """What the warehouse has of the return after the withdrawal."""


POINTS = {
    "refund, in review": Point("refund", "in_review", dear=True),
    "refund, review overdue": Point("refund", "review_overdue", dear=True),
    "refund, too late to stop": Point("refund", "shipment_not_stopped", shipped=False, fault="stop_too_late"),
    "refund, stop refused": Point("refund", "shipment_not_stopped", shipped=False, fault="warehouse_refuse"),
    "refund, no warehouse": Point("refund", "warehouse_down", shipped=False, fault="warehouse_down"),
    "refund, declined by the provider": Point("refund", "refund_declined", fault="refuse"),
    "refund, no provider": Point("refund", "provider_down", fault="rate_limit"),
    "return, in review": Point("return", "in_review", dear=True),
    "return, review overdue": Point("return", "review_overdue", dear=True),
    "return, RMA refused": Point("return", "warehouse_refused", fault="warehouse_refuse"),
    "return, no warehouse": Point("return", "warehouse_down", fault="warehouse_down"),
    "return, awaiting parcel": Point("return", "awaiting_customer", rma="cancelled"),
    "return, awaiting goods": Point("return", "awaiting_warehouse", facts=("parcel",), rma="cancelled"),
    "return, goods overdue": Point("return", "goods_overdue", facts=("parcel",), rma="cancelled"),
    "return, goods short": Point("return", "goods_short", facts=("parcel", "half"), rma="expected"),
    "return, refund declined": Point("return", "refund_declined", fault="refuse", facts=("all",), rma="expected"),
}


async def reach(desk: Desk, n: int, point: Point) -> str:
    """The case, waiting at the point."""
    case = case_id(f"R{n}")
    for about in (case, f"lanhua:tmall:O{n}", f"pay-O{n}"):
        if point.fault:
            await desk.fault(about, point.fault, times=None)
    cheap = [DEAR[0] | {"amount": 10_000}]
    await desk.order(f"O{n}", lines=DEAR if point.dear else cheap, shipped=point.shipped)
    lines = [{"line_id": "1", "quantity": 2}]
    await desk.request(f"O{n}", f"R{n}", kind=point.kind, lines=lines)
    facts = {
        "parcel": fact("parcel.returning", f"R{n}", waybill=f"SF{n}", sent_at=now().isoformat()),
        "half": receipt_event(f"W{n}", counted(sellable=1), rma=case),
        "all": receipt_event(f"W{n}", counted(sellable=2), rma=case),
    }
    await desk.tell(*(facts[one] for one in point.facts))

    async def there() -> bool:
        shown = await desk.case(case)
        return point.shows in (shown.status, shown.attention_cause)

    await desk.until(there, what=lambda: point.shows)
    return case


async def withdraw(desk: Desk, n: int) -> None:
    await desk.sandbox.delete("/faults")
    [answer] = await desk.tell(fact("aftersale.withdrawn", f"R{n}", withdrawn_at=now().isoformat()))
    assert answer["status"] == "accepted"


@pytest.mark.parametrize("where", POINTS)
async def test_t2_the_buyer_withdraws_wherever_the_case_waits(desk: Desk, n: int, where: str) -> None:
    point = POINTS[where]
    case = await reach(desk, n, point)
    await withdraw(desk, n)
    ended = await desk.status(case, CaseStatus.withdrawn, within=5)

    assert (ended.refunded, ended.attention) == (0, None)
    assert await desk.refunds_of(f"pay-O{n}") == []
    assert [message for message in await desk.messages(case) if message[0] == "withdrawn"] == [("withdrawn", "buyer", 1)]
    at_the_warehouse = (await desk.sandbox.get(f"/warehouse/returns/{case}")).json()
    assert at_the_warehouse.get("state", "") == point.rma

    again = await desk.request(f"O{n}", f"A{n}", lines=[{"line_id": "1", "quantity": 2}])
    wanted = CaseStatus.in_review if point.dear else CaseStatus.completed
    taken = await desk.status(again, wanted)
    assert taken.decision and sum(line.quantity for line in taken.request.lines) == 2
    assert taken.decision.inputs.nothing_left is False
    await desk.check_audit()


@pytest.mark.parametrize("fault", ["settle_later", "lookup_blind"])
async def test_t2_once_money_may_have_moved_a_withdrawal_is_noted_and_the_case_goes_on(desk: Desk, n: int, fault: str) -> None:
    """While the provider takes its time, and while nobody knows whether it moved the money."""
    await desk.order(f"O{n}")
    await desk.fault(f"pay-O{n}", fault, seconds=5)
    shows = CaseStatus.awaiting_settlement
    if fault == "lookup_blind":
        await desk.fault(f"pay-O{n}", "no_webhook")
        await desk.fault(f"pay-O{n}", "accept_then_drop")
        shows = CaseStatus.attention
    case = await desk.request(f"O{n}", f"R{n}")
    await desk.status(case, shows)
    await withdraw(desk, n)

    ended = await desk.status(case, CaseStatus.completed)

    assert ended.refunded == 5_000
    assert (await notes(desk, case))["buyer.withdrew"].text == "too late"
    assert [one["amount"] for one in await desk.refunds_of(f"pay-O{n}")] == [5_000]
    assert {template for template, _, _ in await desk.messages(case)} & {"refund_paid", "withdrawn"} == {"refund_paid"}
    await desk.check_audit()


async def test_t2_a_withdrawal_that_came_too_late_holds_if_the_provider_then_fails_the_refund(desk: Desk, n: int) -> None:
    await desk.order(f"O{n}")
    await desk.fault(f"pay-O{n}", "fail_later", seconds=1.5)
    case = await desk.request(f"O{n}", f"R{n}")
    await desk.status(case, CaseStatus.awaiting_settlement)
    await withdraw(desk, n)

    ended = await desk.status(case, CaseStatus.withdrawn)

    assert ended.refunded == 0
    assert [one["state"] for one in await desk.refunds_of(f"pay-O{n}")] == ["failed"]
    await desk.check_audit()


# T6: a case is reset after its refund was paid --------------------------------------------------------------------------


async def reset(desk: Desk, case: str, *, before: str, keep_signals: bool) -> None:
    """Reset the case to the workflow task that asked for the activity `before`, or to the first one of all."""
    client = await client_of(desk)
    history = await client.get_workflow_handle(workflow_id(case)).fetch_history()
    point = 0
    for past in history.events:
        scheduled = past.activity_task_scheduled_event_attributes
        if point and (not before or scheduled.activity_type.name == before):
            break
        if past.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            point = past.event_id
    else:
        raise AssertionError(f"{case} never came to {before}")
    exclude = [] if keep_signals else [ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL]
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id(case)),
            reason="a test",
            workflow_task_finish_event_id=point,
            request_id=str(uuid.uuid4()),
            reset_reapply_exclude_types=exclude,
        )
    )
    result = await client.get_workflow_handle(workflow_id(case), result_type=CaseView).result()
    assert result.outcome is CaseStatus.completed


RESETS = [
    ("refund", "", True),
    ("refund", "", False),
    ("refund", "refund", False),
    ("refund decided by a person", "", True),
    ("refund decided by a person", "refund", False),
    ("return", "", True),  # without its facts, a return would wait for them anew
    ("return", "refund", True),
    ("return", "refund", False),
]


@pytest.mark.parametrize(("kind", "before", "keep_signals"), RESETS)
async def test_t6_a_case_that_is_reset_after_its_refund_was_paid_pays_nothing_again(
    desk: Desk, n: int, kind: str, before: str, keep_signals: bool
) -> None:
    await desk.order(f"O{n}", lines=DEAR if "person" in kind else None)
    case = await desk.request(f"O{n}", f"R{n}", kind=kind.split()[0])
    if kind == "return":
        await desk.tell(receipt_event(f"W{n}", counted(sellable=1), rma=case))
    elif "person" in kind:
        await desk.status(case, CaseStatus.in_review)
        await desk.decide(case, Verdict.approve)
    await desk.status(case, CaseStatus.completed)
    paid, told = await desk.refunds_of(f"pay-O{n}"), await desk.messages(case)

    await reset(desk, case, before=before, keep_signals=keep_signals)

    assert len(paid) == 1
    assert await desk.refunds_of(f"pay-O{n}") == paid
    [effect] = await desk.effects(case, EffectKind.refund)
    assert (effect.key, effect.state, effect.calls) == (f"refund:{case}:card:1", EffectState.succeeded, 1)
    assert await desk.messages(case) == told
    await desk.check_audit()


async def test_t6_a_withdrawal_that_came_too_late_is_too_late_after_a_reset_as_well(desk: Desk, n: int) -> None:
    await desk.order(f"O{n}")
    await desk.fault(f"pay-O{n}", "settle_later", seconds=1)
    case = await desk.request(f"O{n}", f"R{n}")
    await desk.status(case, CaseStatus.awaiting_settlement)
    await withdraw(desk, n)
    await desk.status(case, CaseStatus.completed)

    await reset(desk, case, before="", keep_signals=True)

    assert [one["amount"] for one in await desk.refunds_of(f"pay-O{n}")] == [5_000]
    await desk.check_audit()


# T7: told again and again, in any order ---------------------------------------------------------------------------------


async def states_of(desk: Desk, case: str) -> Counter[tuple[str, InboxState]]:
    async with desk.stack.db.read() as session:
        rows = await session.scalars(select(InboxRow).where(InboxRow.case_id == case))
        return Counter((row.type, row.state) for row in rows)


async def test_t7_five_requests_from_two_sources_behind_their_own_facts_are_one_case(desk: Desk, n: int) -> None:
    case = case_id(f"R{n}")
    parcel = fact("parcel.returning", f"R{n}", waybill=f"SF{n}", sent_at=now().isoformat())
    goods = receipt_event(f"W{n}", counted(sellable=1), rma=case)
    asked = request_event(f"O{n}", f"R{n}", kind="return")
    again = [asked, asked | {"id": f"{n}-b"}, asked | {"source": "/mirror"}, asked | {"source": "/mirror", "id": f"{n}-b"}]

    early = await desk.tell(goods, parcel, goods, asked)
    assert [answer["status"] for answer in early] == ["waiting", "waiting", "duplicate", "waiting"]
    more = await asyncio.gather(*(desk.tell(one) for one in again))
    assert {answer["status"] for [answer] in more} == {"waiting", "duplicate"}
    await desk.order(f"O{n}")
    ended = await desk.status(case, CaseStatus.completed)
    late = await asyncio.gather(*(desk.tell(one) for one in [*again, parcel, goods]))

    assert {answer["status"] for [answer] in late} == {"duplicate"}
    assert ended.refunded == 5_000
    assert [one["amount"] for one in await desk.refunds_of(f"pay-O{n}")] == [5_000]
    assert await states_of(desk, case) == {
        ("aftersale.requested", InboxState.processed): 4,
        ("parcel.returning", InboxState.processed): 1,
        ("warehouse.received", InboxState.processed): 1,
        ("payment.refund_settled", InboxState.processed): 1,
    }
    assert set(await desk.messages(case)) == {("return_address", "buyer", 1), ("refund_paid", "buyer", 1)}
    await desk.check_audit()


async def test_t7_another_request_under_a_known_reference_is_refused(desk: Desk, n: int) -> None:
    await desk.order(f"O{n}")
    case = await desk.request(f"O{n}", f"R{n}")
    other = request_event(f"O{n}", f"R{n}", id_=f"{n}-other", lines=[{"line_id": "1", "quantity": 2}])

    [refused] = await desk.tell(other)

    assert (refused["http"], refused["status"], refused["field"]) == (409, "rejected", "data.reference")
    assert (await desk.status(case, CaseStatus.completed)).refunded == 5_000
    await desk.check_audit()


async def test_t7_another_content_under_a_known_event_id_is_refused(desk: Desk, n: int) -> None:
    await desk.order(f"O{n}")
    case = await desk.request(f"O{n}", f"R{n}")
    known = request_event(f"O{n}", f"R{n}")

    [refused] = await desk.tell(known | {"data": known["data"] | {"reference": f"S{n}"}})

    assert (refused["http"], refused["status"], refused["field"]) == (409, "rejected", "id")
    with pytest.raises(NotFound):
        await desk.case(case_id(f"S{n}"))
    assert (await desk.status(case, CaseStatus.completed)).refunded == 5_000
    await desk.check_audit()
