"""What a case's own history on the server tells: tries, errors, waits, facts, people, and what is still to come."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client

from activities.finance import Finance
from activities.notification import Notification
from activities.registration import Registration
from activities.warehouse import WarehouseDesk
from domain.cases import Action, CaseStatus, workflow_id
from domain.errors import NotFound
from domain.events import EVENT_TYPES
from domain.policy import Verdict
from engine import steps as words
from engine.client import connect
from engine.history import tell
from engine.steps import Step, StepState
from settings import Settings
from tests.desk import Desk, counted, desk_on, fact, policies_with, receipt_event

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    folder = tmp_path_factory.mktemp("history")
    policies = policies_with(folder / "policies", review={"within": "1h", "alarm_before": "1m"})
    async with desk_on(Settings(data_dir=folder / "data", policies=policies), settle_seconds=0.05) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(desk: Desk) -> Client:
    return await connect(desk.stack.settings)


async def told(client: Client, case: str) -> list[Step]:
    return await tell(client, workflow_id(case))


def only(steps: list[Step], name: str) -> Step:
    [step] = [step for step in steps if step.step == name]
    return step


async def ended(client: Client, case: str) -> list[Step]:
    """The whole story of a case; its last message shows it as ended an instant before its workflow is."""
    await client.get_workflow_handle(workflow_id(case)).result()
    return await told(client, case)


async def waiting(desk: Desk, client: Client, case: str) -> Step:
    """Wait until the case waits, and how it does."""

    async def there() -> Step | None:
        waits = [step for step in await told(client, case) if step.step == "wait"]
        return waits[-1] if waits and waits[-1].state is StepState.waiting else None

    step: Step = await desk.until(there)
    return step


async def test_a_refund_is_told_in_the_order_of_the_business(desk: Desk, client: Client) -> None:
    await desk.order("O-1")
    case = await desk.request("O-1", "R-1")

    steps = await ended(client, case)

    names = [step.step for step in steps if step.step not in ("store", "wait", "payment.refund_settled")]
    assert names == ["case.opened", "register", "refund", "tell", "case.closed"]
    assert {step.state for step in steps} == {StepState.done}
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    assert only(steps, "case.opened").detail == "order O-1: 1 units, CNY 50.00, quality"
    assert only(steps, "register").detail == "approve by changed.yaml test-1: auto_approve.0"
    assert only(steps, "refund").detail.startswith("CNY 50.00 over tender card: ")
    assert only(steps, "tell").detail == "refund_paid to buyer"
    closed = only(steps, "case.closed")
    assert (closed.what, closed.detail) == ("case completed", "CNY 50.00 refunded")
    assert closed.duration_seconds is not None and closed.duration_seconds > (only(steps, "refund").duration_seconds or 0) > 0


async def test_a_step_that_worked_at_last_tells_its_tries_and_the_last_error(desk: Desk, client: Client) -> None:
    await desk.fault("lanhua:tmall:R-2", "warehouse_down", times=1)
    await desk.order("O-2")
    case = await desk.request("O-2", "R-2", kind="return")
    await waiting(desk, client, case)

    step = only(await told(client, case), "expect_return")

    assert (step.state, step.attempts) == (StepState.done, 2)
    assert step.error.startswith("OutcomeUnknown: ") and "503" in step.error
    assert step.duration_seconds is not None and step.duration_seconds >= 1


async def test_a_step_under_way_tells_when_it_is_tried_again_and_then_that_it_failed(desk: Desk, client: Client) -> None:
    await desk.fault("lanhua:tmall:R-3", "warehouse_down", times=None)
    await desk.order("O-3")
    case = await desk.request("O-3", "R-3", kind="return")

    async def tried_twice() -> Step | None:
        found = [step for step in await told(client, case) if step.step == "expect_return"]
        return found[0] if found and found[0].attempts >= 2 and found[0].until else None

    pending: Step = await desk.until(tried_twice)
    assert pending.state is StepState.waiting
    assert pending.error.startswith("OutcomeUnknown: ")
    assert pending.until is not None and pending.until > pending.at
    assert pending.duration_seconds is None

    await desk.stuck(case, "warehouse_down")
    over = only(await told(client, case), "expect_return")
    assert (over.state, over.until) == (StepState.failed, None)
    assert over.attempts >= 3 and over.error.startswith("OutcomeUnknown: ")


async def test_a_step_that_ran_out_of_time_tells_what_went_wrong_before(desk: Desk, client: Client) -> None:
    await desk.fault("lanhua:tmall:R-9", "warehouse_down", times=1)
    await desk.order("O-9")
    case = await desk.request("O-9", "R-9", kind="return")

    async def tried_once() -> bool:
        return any(step.error for step in await told(client, case))

    await desk.until(tried_once)
    await desk.fault("lanhua:tmall:R-9", "slow", seconds=4)
    await desk.stuck(case, "warehouse_down")

    over = only(await told(client, case), "expect_return")
    assert (over.state, over.attempts) == (StepState.failed, 2)
    assert over.error.startswith("OutcomeUnknown: ") and "503" in over.error


async def test_what_people_said_is_told_with_who_and_why(desk: Desk, client: Client) -> None:
    await desk.order("O-4", lines=[{"line_id": "1", "sku": "POT", "quantity": 1, "amount": 99_000}])
    case = await desk.request("O-4", "R-4")
    wait = await waiting(desk, client, case)
    assert wait.duration_seconds is None
    assert wait.until is not None and (wait.until - wait.at).total_seconds() == pytest.approx(59 * 60, abs=5)  # the alarm

    await desk.decide(case, Verdict.decline, by="wang")

    steps = await ended(client, case)
    said = only(steps, "decide")
    assert (said.what, said.detail, said.actor) == ("a person decided: decline", "seen the photos", "wang")
    assert only(steps, "record_decision").state is StepState.done
    assert only(steps, "wait").detail == "the case ended first"


async def test_a_corrected_address_is_told_without_the_address(desk: Desk, client: Client) -> None:
    await desk.fault("lanhua:tmall:R-5", "message_down", times=None)
    await desk.order("O-5")
    case = await desk.request("O-5", "R-5")
    await desk.stuck(case, "message_undeliverable")
    (await desk.sandbox.delete("/faults")).raise_for_status()
    await desk.resolve(case, Action.amend, by="wang", recipient="new@example.com")

    steps = await ended(client, case)

    said = only(steps, "resolve")
    assert (said.what, said.detail, said.actor) == (
        "a person said: amend",
        "looked at it (recipient another address)",
        "wang",
    )
    assert not [step for step in steps if "@" in step.model_dump_json()]


async def test_what_the_outside_told_is_a_fact_with_its_source(desk: Desk, client: Client) -> None:
    await desk.order("O-6")
    case = await desk.request("O-6", "R-6", kind="return", lines=[{"line_id": "1", "quantity": 2}])
    await waiting(desk, client, case)
    await desk.tell(
        fact("parcel.returning", "R-6", waybill="SF-6", sent_at="2026-11-20T09:00:00Z"),
        receipt_event("G-6", counted(sellable=1, damaged=1), rma=case),
    )

    steps = await ended(client, case)

    parcel, receipt = only(steps, "parcel.returning"), only(steps, "warehouse.received")
    assert (parcel.what, parcel.detail, parcel.actor) == ("the buyer sent the goods", "waybill SF-6", "/shop")
    assert (receipt.detail, receipt.actor) == ("receipt G-6: 1 × 1 sellable, 1 × 1 damaged", "/wms")
    assert only(steps, "record_receipt").at >= receipt.at
    assert "something came first" in [step.detail for step in steps if step.step == "wait"]


async def test_a_wait_that_ran_out_says_so(desk: Desk, client: Client) -> None:
    await desk.order("O-7")
    case = await desk.request("O-7", "R-7", kind="return")

    waits = [step for step in await ended(client, case) if step.step == "wait"]

    assert [wait.detail for wait in waits] == ["time was up", "time was up"]  # the reminder, and the end
    assert sum(wait.duration_seconds or 0 for wait in waits) == pytest.approx(4, abs=0.8)


async def test_a_reset_and_an_end_by_force_are_told(desk: Desk, client: Client) -> None:
    await desk.order("O-8", lines=[{"line_id": "1", "sku": "POT", "quantity": 1, "amount": 99_000}])
    case = await desk.request("O-8", "R-8")
    await desk.status(case, CaseStatus.in_review)
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id(case)),
            reason="the policy was wrong",
            workflow_task_finish_event_id=4,
            request_id="reset-8",
        )
    )

    await waiting(desk, client, case)
    await client.get_workflow_handle(workflow_id(case)).terminate(reason="a test order")

    steps = await told(client, case)
    assert "the policy was wrong" in only(steps, "case.reset").detail
    closed = steps[-1]
    assert (closed.step, closed.state, closed.error) == ("case.closed", StepState.failed, "a test order")
    assert only(steps, "wait").detail == "the case ended first"


async def test_a_case_that_the_server_does_not_know_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound, match="no history of case/lanhua:tmall:NOBODY"):
        await told(client, "lanhua:tmall:NOBODY")


async def test_every_activity_of_a_case_and_every_fact_has_words() -> None:
    verbs = [verb for of in (Finance, Notification, Registration, WarehouseDesk) for verb in vars(of).values()]
    found = [activity._Definition.from_callable(verb) for verb in verbs if callable(verb)]
    names = {definition.name for definition in found if definition}

    assert names - {"refund_standing_at_provider"} == set(words.ACTIVITIES)  # that one is of no case
    facts = {name for name in EVENT_TYPES if not name.startswith("order.")} - {"aftersale.requested"}
    assert facts == set(words.FACTS)
