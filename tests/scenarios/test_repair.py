"""What the runbook tells people to do when the machinery was hurt: resets, lost workflows, records behind their cases."""

import uuid

from sqlalchemy import select, update
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest, ResetWorkflowExecutionRequest
from temporalio.client import Client

from cli.audit import audit
from db.models import InboxRow, InboxState, NoteRow
from domain.cases import Action, Attention, CaseRequest, CaseStatus, Claim, workflow_id
from domain.effects import EffectKind
from domain.events import CaseKind
from engine.client import connect
from tests.desk import Desk, case_id, counted, event, fact, now, order_events, receipt_event, request_event


async def client_of(desk: Desk) -> Client:
    return await connect(desk.stack.settings, address=desk.stack.server.address)


async def reset(desk: Desk, case: str, *, last: bool = False) -> None:
    """To the first workflow task, or the last one."""
    client = await client_of(desk)
    history = await client.get_workflow_handle(workflow_id(case)).fetch_history()
    done = [past.event_id for past in history.events if past.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED]
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id(case)),
            reason="a test",
            workflow_task_finish_event_id=done[-1 if last else 0],
            request_id=str(uuid.uuid4()),
        )
    )


async def timeline(desk: Desk, case: str) -> list[tuple[str, str]]:
    """(step, actor), oldest first."""
    async with desk.stack.db.read() as session:
        rows = await session.scalars(select(NoteRow).where(NoteRow.case_id == case).order_by(NoteRow.seq))
        return [(row.step, row.actor) for row in rows]


async def declined_refund(desk: Desk, order: str, reference: str) -> str:
    await desk.order(order)
    await desk.fault(f"pay-{order}", "refuse")
    case = await desk.request(order, reference)
    await desk.stuck(case, "refund_declined")
    return case


async def parked(desk: Desk, case: str) -> Attention | None:
    """As the workflow itself says."""
    return (await desk.stack.starter.view(case)).attention


async def violations(desk: Desk) -> list[str]:
    return [violation for check in await audit(desk.stack.db, desk.stack.starter) for violation in check.violations]


async def test_after_a_reset_the_tables_follow_the_case_and_what_people_did_before_stays(desk: Desk) -> None:
    await desk.order("O1")
    case = await desk.request("O1", "R1", kind="return", lines=[{"line_id": "1", "quantity": 2}])
    await desk.tell(fact("parcel.returning", "R1", waybill="SF1", sent_at=now().isoformat()))
    before = (await desk.stuck(case, "goods_overdue")).attention
    await desk.resolve(case, Action.retry)
    await desk.status(case, CaseStatus.awaiting_warehouse)
    again = (await desk.stuck(case, "goods_overdue")).attention
    await desk.resolve(case, Action.retry)
    await desk.status(case, CaseStatus.awaiting_warehouse)

    await reset(desk, case)
    stuck = (await desk.stuck(case, "goods_overdue")).attention
    await desk.tell(receipt_event("W1", counted(sellable=2), rma=case))
    ended = await desk.status(case, CaseStatus.completed)

    assert before and again and stuck and before.since <= again.since < stuck.since
    assert (ended.refunded, ended.attention) == (10_000, None)
    steps = await timeline(desk, case)
    assert steps.count(("person.retry", "li")) == 2
    assert steps[-1] == ("case.completed", "system")
    await desk.check_audit()


async def test_a_terminated_case_is_named_by_the_audit_and_a_reset_revives_it(desk: Desk) -> None:
    case = await declined_refund(desk, "O1", "R1")
    await (await client_of(desk)).get_workflow_handle(workflow_id(case)).terminate("by mistake")
    assert await violations(desk) == [f"{case} is attention, and no workflow runs it"]

    await reset(desk, case, last=True)
    await desk.until(lambda: parked(desk, case), what=lambda: "the case to need a person")
    await desk.resolve(case, Action.retry)

    await desk.status(case, CaseStatus.completed)
    await desk.check_audit()


async def test_cases_that_the_server_lost_begin_anew_when_their_events_are_told_again(desk: Desk) -> None:
    case = await declined_refund(desk, "O1", "R1")
    client = await client_of(desk)
    lost = WorkflowExecution(workflow_id=workflow_id(case))
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(namespace=client.namespace, workflow_execution=lost)
    )
    named = await desk.until(lambda: violations(desk))
    assert named == [f"{case} is attention, and no workflow runs it"]

    async with desk.stack.db.write() as session:
        again = update(InboxRow).where(InboxRow.case_id == case, InboxRow.state == InboxState.processed)
        await session.execute(again.values(state=InboxState.accepted, settled_at=None))
    await desk.until(lambda: _stuck_again(desk, case), what=lambda: "the case to be stuck again")
    await desk.resolve(case, Action.retry)

    await desk.status(case, CaseStatus.completed)
    assert [one["amount"] for one in await desk.refunds_of("pay-O1")] == [5_000]
    assert [told for told in await desk.messages(case) if told[2] > 1] == []
    await desk.check_audit()


async def _stuck_again(desk: Desk, case: str) -> bool:
    return (await timeline(desk, case)).count(("attention.refund_declined", "system")) == 2


async def test_a_refund_taken_back_after_its_case_was_closed_is_paid_again_after_a_reset(desk: Desk) -> None:
    await desk.order("O1")
    case = await desk.request("O1", "R1")
    await desk.status(case, CaseStatus.completed)
    [effect] = await desk.effects(case, EffectKind.refund)
    about = {"provider": "sandbox", "refund_key": effect.key, "provider_ref": effect.reference, "currency": "CNY"}
    failed = event("payment.refund_failed", "taken-back", amount=5_000, code="gone", failed_at=now().isoformat(), **about)
    await desk.tell(failed)
    assert f"{case} is closed: payable 5000, shown 5000, moved 0" in await violations(desk)

    await reset(desk, case)
    await desk.stuck(case, "refund_failed")
    await desk.resolve(case, Action.settle_by_hand, voucher="BANK-1")

    ended = await desk.status(case, CaseStatus.completed)
    assert ended.refunded == 5_000
    assert (await desk.booked(case))["move:refund:*:by-hand:2"] == {"refunds_payable": 5_000, "paid_by_hand": -5_000}
    assert [found for found in await violations(desk) if "payable" in found] == []


async def test_a_case_whose_order_is_not_in_the_records_waits_for_a_person_and_goes_on_once_it_is(desk: Desk) -> None:
    case, client = case_id("R1"), await client_of(desk)
    request = CaseRequest(
        case_id=case,
        kind=CaseKind.refund,
        merchant="lanhua",
        channel="tmall",
        order_id="O1",
        currency="CNY",
        reason="quality",
        requested_at=now(),
        lines=(Claim(line_id="1", quantity=1, amount=5_000),),
    )
    queue = desk.stack.settings.task_queue
    await client.start_workflow("refund", request, id=workflow_id(case), task_queue=queue)
    attention = await desk.until(lambda: parked(desk, case), what=lambda: "the case to need a person")
    assert (attention.step, attention.cause) == ("record", "unexpected")

    await desk.tell(*order_events("O1"), request_event("O1", "R1"))
    await desk.resolve(case, Action.retry)

    await desk.status(case, CaseStatus.completed)
    await desk.check_audit()


async def test_who_abandoned_a_return_and_why_is_kept_although_its_rma_is_cancelled_first(desk: Desk) -> None:
    await desk.order("O1")
    case = await desk.request("O1", "R1", kind="return")
    await desk.tell(fact("parcel.returning", "R1", waybill="SF1", sent_at=now().isoformat()))
    await desk.stuck(case, "goods_overdue")
    await desk.resolve(case, Action.abandon, by="wang")
    await desk.status(case, CaseStatus.declined)

    assert ("person.abandon", "wang") in await timeline(desk, case)
    assert (await desk.sandbox.get(f"/warehouse/returns/{case}")).json()["state"] == "cancelled"
    await desk.check_audit()
