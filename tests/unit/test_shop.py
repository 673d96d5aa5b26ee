"""The made-up day is the same every time, every event of it is acceptable, and it has all the trouble it promises."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.shop import Fault, Plan, Script, play, sample
from domain.entitlement import asked
from domain.events import (
    EVENT_TYPES,
    AftersaleRequested,
    AftersaleWithdrawn,
    CaseKind,
    DeadlineChanged,
    Grade,
    OfCase,
    OrderDelivered,
    OrderPaid,
    OrderShipped,
    ParcelReturning,
)
from sandbox.faults import FaultOrder
from sandbox.parcels import Plan as WarehousePlan

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
PAYMENT_FAULTS = {
    *("refuse", "error", "rate_limit", "slow", "accept_then_drop", "settle_later", "fail_later"),
    *("duplicate_webhook", "webhook_first", "no_webhook", "lookup_blind"),
}


@pytest.fixture(scope="module")
def day() -> Script:
    return play(START)


def orders(day: Script) -> dict[str, OrderPaid]:
    return {event.data.order_id: event.data for event in day.events if isinstance(event.data, OrderPaid)}


def requests(day: Script) -> dict[str, AftersaleRequested]:
    return {event.data.reference: event.data for event in day.events if isinstance(event.data, AftersaleRequested)}


def plans(day: Script) -> list[Plan]:
    return [step.what for step in day.steps if isinstance(step.what, Plan)]


def faults(day: Script) -> list[Fault]:
    return [step.what for step in day.steps if isinstance(step.what, Fault)]


def value(day: Script, request: AftersaleRequested) -> int:
    lines = orders(day)[request.order_id or ""].lines
    return sum(claim.amount for claim in asked(request, lines, "reject"))


def test_every_event_is_acceptable_as_it_goes_out(day: Script) -> None:
    for event in day.events:
        envelope = event.as_cloudevent()
        data = EVENT_TYPES[event.type].model_validate(envelope["data"], extra="forbid")
        assert data == event.data
        assert (envelope["type"], envelope["specversion"]) == (event.type, "1.0")


def test_the_sandbox_takes_every_fault_and_plan(day: Script) -> None:
    for fault in faults(day):
        assert FaultOrder.model_validate(fault.model_dump(mode="json")).match == fault.match
    for plan in plans(day):
        assert WarehousePlan.model_validate(plan.model_dump(mode="json")).rma == plan.rma


def test_the_same_seed_and_start_make_the_same_day_and_another_seed_another(day: Script) -> None:
    assert play(START) == day
    assert play(START, seed=8) != day


def test_a_later_start_moves_the_times_and_keeps_the_story(day: Script) -> None:
    later = play(START + timedelta(days=40))

    assert [step.at for step in later.steps] == [step.at for step in day.steps]
    moved = {after.time - before.time for before, after in zip(day.events, later.events, strict=True)}
    assert moved == {timedelta(days=40)}


def test_three_hundred_orders_lead_to_the_promised_mix_of_requests(day: Script) -> None:
    known = [request for request in requests(day).values() if request.order_id in orders(day)]
    kinds = Counter(request.kind for request in known)
    values = sorted(value(day, request) for request in known)

    assert len(orders(day)) == 300
    assert kinds == {CaseKind.refund: 66, CaseKind.return_: 60}
    assert {request.reason for request in known} == {"no_reason", "quality", "not_as_described", "missing", "late"}
    assert values[0] > 0
    assert sum(amount <= 20_000 for amount in values) > 60
    assert sum(amount > 50_000 for amount in values) > 15
    assert {order.buyer.locale for order in orders(day).values()} == {"zh", "en"}
    assert Counter(len(order.tenders) for order in orders(day).values())[2] > 30


def test_most_orders_are_sent_and_every_return_is_of_goods_that_arrived_in_the_last_week(day: Script) -> None:
    shipped = {event.data.order_id for event in day.events if isinstance(event.data, OrderShipped)}
    arrived = {e.data.order_id: e.data.delivered_at for e in day.events if isinstance(e.data, OrderDelivered)}
    sent_back = [r for r in requests(day).values() if r.kind is CaseKind.return_ and r.order_id in orders(day)]

    assert len(shipped) > 250
    assert set(arrived) < shipped
    for request in sent_back:
        assert timedelta(0) < request.requested_at - arrived[request.order_id or ""] < timedelta(days=7)


def test_some_requests_come_twice_are_withdrawn_rescheduled_or_belong_to_nothing(day: Script) -> None:
    told = [event.data.reference for event in day.events if isinstance(event.data, AftersaleRequested)]
    again = [event.id for event in day.events if event.id.endswith("-again")]
    changed = [event.data for event in day.events if isinstance(event.data, DeadlineChanged)]

    assert sorted(Counter(told).values(), reverse=True)[:4] == [3, 3, 3, 1]
    assert len(again) == 3
    assert sum(isinstance(event.data, AftersaleWithdrawn) for event in day.events) == 5
    assert [requests(day)[data.reference].deadline != data.deadline for data in changed] == [True] * 3
    assert len([request for request in requests(day).values() if request.order_id not in orders(day)]) == 3


def test_events_with_one_id_have_one_content(day: Script) -> None:
    by_id = {(event.source, event.id): event for event in day.events}

    assert all(by_id[event.source, event.id] == event for event in day.events)
    assert len(day.events) - len(by_id) == 3


def test_steps_come_in_order_within_45_seconds_and_facts_after_their_request(day: Script) -> None:
    times = [step.at for step in day.steps]
    asked_for: set[str] = set()

    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] <= 45
    for data in (event.data for event in day.events):
        if isinstance(data, AftersaleRequested):
            asked_for.add(data.reference)
        elif isinstance(data, OfCase):
            assert data.reference in asked_for


def test_about_one_case_in_ten_meets_a_fault_and_each_fault_hits_a_payment_that_is_refunded(day: Script) -> None:
    refunded = [orders(day)[r.order_id] for r in requests(day).values() if r.order_id in orders(day)]
    payments = {order.tenders[0].payment_ref for order in refunded if len(order.tenders) == 1}
    sent = {event.data.order_id for event in day.events if isinstance(event.data, OrderShipped) and event.time < START}
    unsent = {f"lanhua:{order.channel}:{order.order_id}" for order in refunded if order.order_id not in sent}
    on_payments = [fault for fault in faults(day) if fault.fault != "stop_too_late"]
    on_orders = [fault for fault in faults(day) if fault.fault == "stop_too_late"]

    assert {fault.fault for fault in on_payments} == PAYMENT_FAULTS
    assert {fault.match for fault in on_payments} <= payments
    assert len(on_orders) == 2
    assert {fault.match for fault in on_orders} <= unsent
    assert 0.08 < len({fault.match for fault in faults(day)}) / len(refunded) < 0.12


def test_every_return_has_a_plan_that_counts_what_was_asked_but_for_the_troubled_few(day: Script) -> None:
    by_case = {request.case_id: request for request in requests(day).values()}
    verdicts: Counter[str] = Counter()
    for plan in plans(day):
        wanted = sum(line.quantity for line in by_case[plan.rma].lines)
        lines = [line for delivery in plan.deliveries for line in delivery.lines]
        counted = sum(line.quantity for line in lines)
        verdicts["short"] += 0 < counted < wanted
        verdicts["never"] += not plan.deliveries
        verdicts["damaged"] += any(line.grade is Grade.damaged for line in lines)
        verdicts["repeated"] += any(delivery.repeat > 1 for delivery in plan.deliveries)
        verdicts["in two"] += len(plan.deliveries) == 2 and counted == wanted
        verdicts["late"] += any(delivery.after_seconds > 15 for delivery in plan.deliveries)
        assert counted <= wanted
        assert [delivery.final for delivery in plan.deliveries] in ([], [True], [False, True])

    assert len(plans(day)) == 60
    assert verdicts == {"short": 2, "never": 6, "damaged": 2, "repeated": 2, "in two": 2, "late": 4}


def test_a_parcel_is_announced_for_all_that_will_arrive(day: Script) -> None:
    announced = Counter(event.data.case_id for event in day.events if isinstance(event.data, ParcelReturning))

    assert announced == {plan.rma: len(plan.deliveries) for plan in plans(day) if plan.deliveries}


def test_the_example_file_is_what_the_generator_gives() -> None:
    assert (ROOT / "examples" / "events.jsonl").read_text(encoding="utf-8") == sample()
    assert sample().count('"type": "order.paid"') == 10
