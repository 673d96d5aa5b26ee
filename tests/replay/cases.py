"""The cases whose histories are kept, by name: together they take every road through the processes."""

from collections.abc import Awaitable, Callable
from typing import Any

from domain.cases import Action, CaseStatus
from domain.policy import Verdict
from tests.desk import Desk, case_id, counted, fact, now, receipt_event

DEAR = [{"line_id": "1", "sku": "TEA-1", "quantity": 2, "amount": 200_000}]
"""Too much to be approved without a person."""
ONE = [{"line_id": "1", "quantity": 1}]
BOTH = [{"line_id": "1", "quantity": 2}]

Story = Callable[[Desk, str], Awaitable[str]]
"""Plays a case on the order `O-{name}` under the reference `{name}` to its end; the case id."""
STORIES: dict[str, Story] = {}


def story(played: Story) -> Story:
    STORIES[played.__name__.replace("_", "-")] = played
    return played


async def asked(
    desk: Desk, name: str, kind: str = "refund", *, bought: Any = None, shipped: bool = True, lines: Any = ONE
) -> str:
    await desk.order(f"O-{name}", lines=bought, shipped=shipped)
    return await desk.request(f"O-{name}", name, kind=kind, lines=lines)


async def goods(desk: Desk, name: str, receipt: str = "1", corrects: str = "", **grades: int) -> None:
    more = {"corrects": f"{name}-{corrects}"} if corrects else {}
    told = receipt_event(f"{name}-{receipt}", counted("1", **grades), rma=case_id(name), **more)
    assert [answer["status"] for answer in await desk.tell(told)] == ["accepted"]


async def parcel(desk: Desk, name: str) -> None:
    await desk.tell(fact("parcel.returning", name, waybill=f"SF-{name}", sent_at=now().isoformat()))


async def withdrawal(desk: Desk, name: str) -> None:
    await desk.tell(fact("aftersale.withdrawn", name, withdrawn_at=now().isoformat()))


@story
async def refund_straight(desk: Desk, name: str) -> str:
    case = await asked(desk, name)
    await desk.status(case, CaseStatus.completed)
    return case


@story
async def refund_stopped_before_shipment(desk: Desk, name: str) -> str:
    case = await asked(desk, name, shipped=False)
    await desk.status(case, CaseStatus.completed)
    return case


@story
async def refund_too_late_to_stop_waived(desk: Desk, name: str) -> str:
    await desk.fault(f"lanhua:tmall:O-{name}", "stop_too_late")
    case = await asked(desk, name, shipped=False)
    await desk.stuck(case, "shipment_not_stopped")
    await desk.resolve(case, Action.amend, waive=True)
    await desk.status(case, CaseStatus.completed)
    return case


@story
async def refund_reviewed_and_approved(desk: Desk, name: str) -> str:
    case = await asked(desk, name, bought=DEAR)
    await desk.status(case, CaseStatus.in_review)
    await desk.decide(case, Verdict.approve)
    await desk.status(case, CaseStatus.completed)
    return case


@story
async def refund_declined_after_the_deadline_moved(desk: Desk, name: str) -> str:
    case = await asked(desk, name, bought=DEAR)
    await desk.status(case, CaseStatus.in_review)
    await desk.tell(fact("aftersale.deadline_changed", name, deadline=now().isoformat(), changed_at=now().isoformat()))
    await desk.stuck(case, "review_overdue")
    await desk.decide(case, Verdict.decline)
    await desk.status(case, CaseStatus.declined)
    return case


@story
async def refund_declined_by_the_provider_and_retried(desk: Desk, name: str) -> str:
    await desk.fault(f"pay-O-{name}", "refuse")
    case = await asked(desk, name)
    await desk.stuck(case, "refund_declined")
    await desk.resolve(case, Action.retry)
    await desk.status(case, CaseStatus.completed)
    return case


@story
async def refund_unknown_and_settled_by_hand(desk: Desk, name: str) -> str:
    for fault in ("no_webhook", "accept_then_drop"):
        await desk.fault(f"pay-O-{name}", fault)
    await desk.fault(f"pay-O-{name}", "lookup_blind", seconds=3_600)
    case = await asked(desk, name)
    await desk.stuck(case, "outcome_unknown")
    await desk.resolve(case, Action.settle_by_hand, voucher="V-1")
    await desk.status(case, CaseStatus.completed)
    return case


@story
async def refund_failed_and_abandoned(desk: Desk, name: str) -> str:
    await desk.fault(f"pay-O-{name}", "fail_later", seconds=0.2)
    case = await asked(desk, name)
    await desk.stuck(case, "refund_failed")
    await desk.resolve(case, Action.abandon)
    await desk.status(case, CaseStatus.declined)
    return case


@story
async def refund_withdrawn_in_review(desk: Desk, name: str) -> str:
    case = await asked(desk, name, bought=DEAR)
    await desk.status(case, CaseStatus.in_review)
    await withdrawal(desk, name)
    await desk.status(case, CaseStatus.withdrawn)
    return case


@story
async def return_straight(desk: Desk, name: str) -> str:
    case = await asked(desk, name, "return")
    await desk.status(case, CaseStatus.awaiting_customer)
    await parcel(desk, name)
    await desk.status(case, CaseStatus.awaiting_warehouse)
    await goods(desk, name, sellable=1)
    await desk.status(case, CaseStatus.completed)
    return case


@story
async def return_short_and_chased(desk: Desk, name: str) -> str:
    case = await asked(desk, name, "return", lines=BOTH)
    await parcel(desk, name)
    await desk.status(case, CaseStatus.awaiting_warehouse)
    await goods(desk, name, damaged=1)
    await desk.status(case, CaseStatus.completed)
    return case


@story
async def return_overdue_and_waived(desk: Desk, name: str) -> str:
    case = await asked(desk, name, "return")
    await parcel(desk, name)
    await desk.stuck(case, "goods_overdue")
    await desk.resolve(case, Action.amend, waive=True)
    await desk.status(case, CaseStatus.completed)
    return case


@story
async def return_expired(desk: Desk, name: str) -> str:
    case = await asked(desk, name, "return")
    await desk.status(case, CaseStatus.expired)
    return case


@story
async def return_withdrawn_on_its_way(desk: Desk, name: str) -> str:
    case = await asked(desk, name, "return")
    await parcel(desk, name)
    await desk.status(case, CaseStatus.awaiting_warehouse)
    await withdrawal(desk, name)
    await desk.status(case, CaseStatus.withdrawn)
    return case


@story
async def return_corrected_upwards_while_paid(desk: Desk, name: str) -> str:
    await desk.fault(f"pay-O-{name}", "settle_later", seconds=1.5)
    case = await asked(desk, name, "return", lines=BOTH)
    await desk.status(case, CaseStatus.awaiting_customer)
    await goods(desk, name, damaged=2)
    await desk.status(case, CaseStatus.awaiting_settlement)
    await goods(desk, name, receipt="2", corrects="1", sellable=2)
    await desk.status(case, CaseStatus.completed)
    return case


@story
async def return_corrected_downwards_after_payment(desk: Desk, name: str) -> str:
    await desk.fault(f"pay-O-{name}", "settle_later", seconds=1.5)
    case = await asked(desk, name, "return", lines=BOTH)
    await desk.status(case, CaseStatus.awaiting_customer)
    await goods(desk, name, sellable=2)
    await desk.status(case, CaseStatus.awaiting_settlement)
    await goods(desk, name, receipt="2", corrects="1", damaged=2)
    await desk.stuck(case, "goods_corrected")
    await desk.resolve(case, Action.amend, waive=True)
    await desk.status(case, CaseStatus.completed)
    return case


@story
async def return_refused_by_the_warehouse_and_retried(desk: Desk, name: str) -> str:
    await desk.fault(case_id(name), "warehouse_refuse")
    case = await asked(desk, name, "return")
    await desk.stuck(case, "warehouse_refused")
    await desk.resolve(case, Action.retry)
    await desk.status(case, CaseStatus.awaiting_customer)
    await goods(desk, name, sellable=1)
    await desk.status(case, CaseStatus.completed)
    return case
