"""Registering on both databases: what is there is given once, and what was decided stays decided."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from activities.registration import Decided, Registered, Registration
from db import cases, orders
from db.session import Database
from domain.cases import CaseRequest, CaseStatus, Claim
from domain.policy import Policies, Verdict
from tests.desk import case_id, now, request_event
from tests.integration.kit import opened, policies, progress, take

TEN = {"lines": [{"line_id": "1", "sku": "TEA-1", "quantity": 10, "amount": 10_001}]}


async def register(db: Database, request: CaseRequest, rules: Policies | None = None) -> Registered:
    return await Registration(db, rules or policies()).register(request)


async def claims(db: Database, reference: str) -> list[tuple[str, int, int, str]]:
    async with db.read() as session:
        rows = await cases.claims_of(session, case_id(reference))
    return [(row.line_id, row.quantity, row.amount, row.state.value) for row in rows]


async def test_a_case_is_told_its_claims_its_decision_and_its_terms(db: Database) -> None:
    [request] = await opened(db, "O1", "R1")

    registered = await register(db, request)

    assert registered.claims == (Claim(line_id="1", quantity=1, amount=5_000),)
    assert (registered.decision.verdict, registered.decision.rule) == (Verdict.approve, "auto_approve.0")
    assert (registered.decision.version, registered.decision.by) == ("test-1", "policy")
    assert (registered.terms.cost_percent, registered.terms.tell["refund_paid"], registered.shipped) == (60, ("buyer",), True)


@pytest.mark.parametrize("units", [2, 3])
async def test_ten_registrations_on_one_line_at_once_get_no_more_than_was_bought_and_paid(db: Database, units: int) -> None:
    requests = await opened(db, "O1", *(f"R{n}" for n in range(10)), order=TEN, lines=[{"line_id": "1", "quantity": units}])

    found = await asyncio.gather(*(register(db, request) for request in requests))

    fits = 10 // units
    granted = [claim for one in found for claim in one.claims]
    assert [one.decision.verdict for one in found].count(Verdict.approve) == fits
    assert [one.decision.verdict for one in found].count(Verdict.decline) == 10 - fits
    assert {one.decision.rule for one in found if one.decision.verdict is Verdict.decline} == {"nothing_left"}
    assert sum(claim.quantity for claim in granted) == fits * units
    assert sum(claim.amount for claim in granted) == (10_001 if fits * units == 10 else 9_001)


async def test_a_second_registration_answers_the_first_decision_whatever_the_rules_are_by_then(db: Database) -> None:
    [request] = await opened(db, "O1", "R1")
    first = await register(db, request)

    strict = policies(("CNY: 50000", "CNY: 1"), ('"test-1"', '"test-2"'))
    second = await register(db, request, strict)

    assert second.decision == first.decision
    assert await claims(db, "R1") == [("1", 1, 5_000, "reserved")]


async def test_a_person_s_decision_stands_when_the_case_registers_again(db: Database) -> None:
    [request] = await opened(db, "O1", "R1")
    rules = policies(("CNY: 50000", "CNY: 1"))
    first = await register(db, request, rules)
    assert (first.decision.verdict, first.decision.rule) == (Verdict.review, "no_rule")

    said = first.decision.model_copy(update={"verdict": Verdict.decline, "by": "li", "reason": "worn"})
    told = progress(request.case_id, "declined", revision=1, outcome=CaseStatus.declined)
    await Registration(db, rules).record_decision(Decided(progress=told, decision=said))

    async with db.read() as session:
        case = await cases.named(session, request.case_id)
    assert (case.decision, case.status) == (said, CaseStatus.declined)
    assert (await register(db, request, rules)).decision == said


async def test_a_buyer_who_asks_too_often_goes_to_a_person(db: Database) -> None:
    rules = policies(("requests: 1000", "requests: 2"))
    requests = await opened(db, "O1", "R1", "R2", "R3", order=TEN)

    decisions = [(await register(db, request, rules)).decision for request in reversed(requests)]

    assert [one.rule for one in decisions] == ["too_many_requests", "auto_approve.0", "auto_approve.0"]
    assert [one.inputs.buyer_requests for one in decisions] == [3, 2, 1]
    assert decisions[0].verdict is Verdict.review


async def test_a_buyer_who_asks_for_too_much_goes_to_a_person_and_another_buyer_does_not(db: Database) -> None:
    rules = policies(("requests: 1000", "requests: 1000, amount: {CNY: 9999}"))
    first, second = await opened(db, "O1", "R1", "R2")
    [other] = await opened(db, "O2", "R3")

    decisions = [(await register(db, request, rules)).decision for request in (first, second, other)]

    assert [one.rule for one in decisions] == ["auto_approve.0", "too_much_claimed", "auto_approve.0"]
    assert [one.inputs.buyer_amount for one in decisions] == [5_000, 10_000, 5_000]


@pytest.mark.parametrize(("late", "rule"), [(timedelta(), "auto_approve.0"), (timedelta(seconds=1), "outside_window")])
async def test_the_return_window_closes_seven_days_after_the_day_of_delivery(db: Database, late: timedelta, rule: str) -> None:
    delivered = now() - timedelta(days=20)
    asked = delivered + timedelta(days=8) + late
    order: dict[str, Any] = {"delivered": False}
    [request] = await opened(db, "O1", "R1", order=order, requested_at=asked.isoformat())
    async with db.write() as session:
        found = await orders.find(session, request.order_key)
        assert found is not None
        found.delivered_at = delivered

    decision = (await register(db, request)).decision

    assert decision.rule == rule
    assert decision.verdict is (Verdict.review if late else Verdict.approve)


async def test_lines_that_another_case_took_are_left_out_and_a_person_is_asked_where_the_rules_say_so(db: Database) -> None:
    rules = policies(("nothing_left: decline", "nothing_left: review"))
    lines = [{"line_id": n, "sku": f"TEA-{n}", "quantity": 1, "amount": 5_000} for n in "12"]
    [first] = await opened(db, "O1", "R1", order={"lines": lines})
    await take(db, request_event("O1", "R2", lines=[{"line_id": n, "quantity": 1} for n in "12"]))
    async with db.read() as session:
        second = (await cases.named(session, case_id("R2"))).request
    await register(db, first, rules)

    registered = await register(db, second, rules)

    assert (registered.decision.verdict, registered.decision.rule) == (Verdict.review, "nothing_left")
    assert await claims(db, "R2") == [("2", 1, 5_000, "reserved")]


async def test_a_case_that_is_not_in_the_records_is_not_retried(db: Database) -> None:
    [request] = await opened(db, "O1", "R1")

    with pytest.raises(ApplicationError) as refused:
        await register(db, request.model_copy(update={"case_id": "lanhua:tmall:R9"}))

    assert (refused.value.type, refused.value.non_retryable) == ("NotFound", True)
