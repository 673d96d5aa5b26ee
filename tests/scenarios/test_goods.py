"""Goods scenarios (G…): judged by the ledger at cost, the warehouse's and the provider's own books, and the audit.

Nothing arrives by itself here: each test says what the warehouse will count. A damaged unit is worth half of what was paid
and goes to scrap; the usual unit costs CNY 20.00 in stock."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from domain.cases import Action, CaseStatus, TrackState
from domain.effects import EffectKind
from domain.policy import Verdict
from settings import Settings
from tests.conftest import POLICIES
from tests.desk import Desk, case_id, counted, desk_on, fact, now, policies_with, receipt_event, request_event

pytestmark = pytest.mark.asyncio(loop_scope="module")
WHOLE = [{"line_id": "1", "quantity": 2}]
ENDED = (CaseStatus.completed, CaseStatus.declined)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """One stack for all: each test has an order of its own."""
    async with desk_on(Settings(data_dir=tmp_path_factory.mktemp("goods") / "data", policies=POLICIES)) as running:
        yield running


@pytest.fixture
def order() -> str:
    """An order id that no other test has; its case has the same reference."""
    return f"O-{uuid4().hex[:8]}"


def lines(quantity: int = 2) -> list[dict[str, Any]]:
    return [{"line_id": "1", "sku": "TEA-1", "quantity": quantity, "amount": 10_000, "unit_cost": 2_000}]


def delivery(receipt_id: str, after: float = 0.1, *, final: bool = False, **more: Any) -> dict[str, Any]:
    """What the warehouse will count: `sellable=1, damaged=1` by grade, and the rest of a planned delivery."""
    grades = {grade: more.pop(grade) for grade in ("sellable", "damaged", "wrong_item") if grade in more}
    return {"receipt_id": receipt_id, "after_seconds": after, "final": final, "lines": counted(**grades), **more}


async def back(desk: Desk, order: str, *deliveries: dict[str, Any], quantity: int = 2) -> str:
    """An order all of whose units are to come back, as planned; the case id."""
    await desk.order(order, lines=lines(quantity))
    await desk.plan(case_id(order), *deliveries)
    return await desk.request(order, order, kind="return", lines=[{"line_id": "1", "quantity": quantity}])


async def refunds(desk: Desk, order: str) -> list[int]:
    """What the provider moved back, in minor units."""
    return [one["amount"] for one in await desk.refunds_of(f"pay-{order}") if one["state"] == "succeeded"]


async def goods_booked(desk: Desk, case: str) -> dict[str, dict[str, int]]:
    """The journal of the goods, by receipt."""
    booked = await desk.booked(case)
    return {key.replace("goods:*:", ""): entry for key, entry in booked.items() if "goods:" in key}


async def rma_state(desk: Desk, case: str) -> str:
    """What the warehouse itself says of the return."""
    return str((await desk.sandbox.get(f"/warehouse/returns/{case}")).json()["state"])


def stock(amount: int) -> dict[str, int]:
    return {"stock": amount, "goods_sold": -amount}


def scrap(amount: int) -> dict[str, int]:
    return {"goods_scrapped": amount, "goods_sold": -amount}


# What arrives ------------------------------------------------------------------------------------------------------


async def test_g1_of_three_announced_two_arrive_in_two_parcels_and_one_is_damaged(desk: Desk, order: str) -> None:
    case = await back(desk, order, delivery("P1", sellable=1), delivery("P2", after=0.6, damaged=1, final=True), quantity=3)
    await desk.tell(fact("parcel.returning", order, waybill=f"SF-{order}", sent_at=now().isoformat()))

    done = await desk.status(case, CaseStatus.completed)

    assert (done.refunded, await refunds(desk, order)) == (5_000, [5_000])
    assert await desk.booked(case) == {
        "goods:*:P1": stock(2_000),
        "goods:*:P2": scrap(2_000),
        "grant:*:1": {"sales_returns": 5_000, "refunds_payable": -5_000},
        "move:refund:*:card:1": {"refunds_payable": 5_000, "payment_clearing": -5_000},
    }
    missing = await desk.request(order, f"{order}-missing")
    assert (await desk.status(missing, CaseStatus.completed)).refunded == 3_333
    await desk.check_audit()


async def test_g2_of_a_refund_and_a_return_that_claim_the_same_line_at_once_the_second_is_declined(
    desk: Desk, order: str
) -> None:
    await desk.order(order, lines=lines())
    for kind in ("refund", "return"):
        await desk.plan(case_id(f"{order}-{kind}"), delivery(f"{order}-P1", sellable=2))
    claims = [request_event(order, f"{order}-{kind}", kind=kind, lines=WHOLE) for kind in ("refund", "return")]
    await asyncio.gather(*(desk.tell(claim) for claim in claims))

    ended = [await desk.status(case_id(f"{order}-{kind}"), *ENDED) for kind in ("refund", "return")]

    assert Counter(case.status for case in ended) == {CaseStatus.completed: 1, CaseStatus.declined: 1}
    assert {case.decision.rule for case in ended if case.decision} == {"auto_approve.0", "nothing_left"}
    assert await refunds(desk, order) == [10_000]
    await desk.check_audit()


async def test_g2_with_a_policy_of_review_a_person_sees_the_second_claim_and_still_nothing_is_paid_twice(
    tmp_path: Path, order: str
) -> None:
    policies = policies_with(tmp_path / "policies", nothing_left="review")
    async with desk_on(Settings(data_dir=tmp_path / "data", policies=policies)) as desk:
        await desk.order(order, lines=lines())
        first = await desk.request(order, f"{order}-1", lines=WHOLE)
        await desk.status(first, CaseStatus.completed)
        second = await desk.request(order, f"{order}-2", lines=WHOLE)
        await desk.status(second, CaseStatus.in_review)

        await desk.decide(second, Verdict.approve)
        done = await desk.status(second, CaseStatus.completed)

        assert (done.approved, done.refunded) == (0, 0)
        assert await refunds(desk, order) == [10_000]
        assert await desk.messages(second) == [("nothing_to_refund", "buyer", 1)]
        await desk.check_audit()


async def test_g6_a_receipt_told_three_times_is_one_and_its_correction_is_a_new_fact_with_its_own_effect(
    desk: Desk, order: str
) -> None:
    case = await back(
        desk,
        order,
        delivery("P1", sellable=1, repeat=3),
        delivery("P1-c", after=0.6, sellable=1, damaged=1, corrects="P1", repeat=3),
    )

    done = await desk.status(case, CaseStatus.completed)

    assert (done.refunded, await refunds(desk, order)) == (7_500, [7_500])
    assert await goods_booked(desk, case) == {
        "P1": stock(2_000),
        "reverse:P1": {"goods_sold": 2_000, "stock": -2_000},
        "P1-c": {"stock": 2_000, "goods_scrapped": 2_000, "goods_sold": -4_000},
    }
    await desk.check_audit()


async def test_g6_a_correction_that_overtakes_its_receipt_counts_and_the_receipt_does_not(desk: Desk, order: str) -> None:
    case = await back(desk, order)
    await desk.tell(
        receipt_event(f"{order}-1c", counted(sellable=1), rma=case, corrects=f"{order}-1"),
        receipt_event(f"{order}-1", counted(damaged=1), rma=case),
        receipt_event(f"{order}-2", counted(damaged=1), rma=case),
    )

    done = await desk.status(case, CaseStatus.completed)

    assert done.refunded == 7_500
    assert await goods_booked(desk, case) == {f"{order}-1c": stock(2_000), f"{order}-2": scrap(2_000)}
    await desk.check_audit()


async def test_g6_a_correction_upwards_after_the_money_left_refunds_the_difference(desk: Desk, order: str) -> None:
    await desk.fault(f"pay-{order}", "settle_later", seconds=1.5)
    case = await back(desk, order, delivery("P1", damaged=2))
    await desk.until(lambda: desk.refunds_of(f"pay-{order}"))
    await desk.tell(receipt_event(f"{order}-1c", counted(sellable=2), rma=case, corrects="P1"))

    done = await desk.status(case, CaseStatus.completed)

    assert (done.refunded, await refunds(desk, order)) == (10_000, [5_000, 5_000])
    grants = {key: entry for key, entry in (await desk.booked(case)).items() if key.startswith("grant:")}
    assert grants == {f"grant:*:{n}": {"sales_returns": 5_000, "refunds_payable": -5_000} for n in (1, 2)}
    assert await goods_booked(desk, case) == {
        "P1": scrap(4_000),
        "reverse:P1": {"goods_sold": 4_000, "goods_scrapped": -4_000},
        f"{order}-1c": stock(4_000),
    }
    await desk.check_audit()


async def test_g6_a_correction_downwards_after_the_money_left_asks_a_person_and_takes_nothing_back(
    desk: Desk, order: str
) -> None:
    await desk.fault(f"pay-{order}", "settle_later", seconds=1.5)
    case = await back(desk, order, delivery("P1", sellable=2))
    await desk.until(lambda: desk.refunds_of(f"pay-{order}"))
    await desk.tell(receipt_event(f"{order}-1c", counted(damaged=2), rma=case, corrects="P1"))
    shown = await desk.stuck(case, "goods_corrected")
    assert shown.attention is not None
    assert shown.attention.detail == "refunded 10000, by the corrected receipt 5000 was owed"

    await desk.resolve(case, Action.amend, waive=True)
    done = await desk.status(case, CaseStatus.completed)

    assert (done.refunded, await refunds(desk, order)) == (10_000, [10_000])
    assert (await goods_booked(desk, case))[f"{order}-1c"] == scrap(4_000)
    await desk.check_audit()


# What does not leave -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "more", "goods_out", "paid"),
    [
        (Action.retry, {}, TrackState.stopped, [10_000]),
        (Action.amend, {"waive": True}, TrackState.done, [10_000]),
        (Action.abandon, {}, TrackState.stopped, []),
    ],
)
async def test_a_shipment_that_left_too_early_to_stop_asks_a_person(
    desk: Desk, order: str, action: Action, more: dict[str, Any], goods_out: TrackState, paid: list[int]
) -> None:
    await desk.order(order, shipped=False)
    await desk.fault(f"lanhua:tmall:{order}", "stop_too_late")
    case = await desk.request(order, order, lines=WHOLE)
    await desk.stuck(case, "shipment_not_stopped")
    assert await desk.refunds_of(f"pay-{order}") == []

    await desk.resolve(case, action, **more)
    done = await desk.status(case, *ENDED)

    assert done.status is (CaseStatus.completed if paid else CaseStatus.declined)
    assert done.tracks.goods_out is goods_out
    assert await refunds(desk, order) == paid
    again = await desk.request(order, f"{order}-2", lines=WHOLE)
    assert (await desk.status(again, *ENDED)).status is (CaseStatus.declined if paid else CaseStatus.completed)
    await desk.check_audit()


# What the warehouse does ---------------------------------------------------------------------------------------------


async def test_a_warehouse_that_is_down_for_a_while_is_asked_again(desk: Desk, order: str) -> None:
    await desk.fault(case_id(order), "warehouse_down", times=2)
    case = await back(desk, order, delivery("P1", sellable=2))

    await desk.status(case, CaseStatus.completed)

    [rma] = await desk.effects(case, EffectKind.rma)
    assert rma.calls == 3
    assert ("attention.warehouse_down", "merchant", 1) not in await desk.messages(case)
    await desk.check_audit()


@pytest.mark.parametrize(
    ("fault", "times", "cause"), [("warehouse_refuse", 1, "warehouse_refused"), ("warehouse_down", None, "warehouse_down")]
)
async def test_a_warehouse_that_does_not_take_the_return_asks_a_person_and_is_asked_again(
    desk: Desk, order: str, fault: str, times: int | None, cause: str
) -> None:
    await desk.fault(case_id(order), fault, times=times)
    case = await back(desk, order, delivery("P1", sellable=2))
    await desk.stuck(case, cause)
    await desk.sandbox.delete("/faults")

    await desk.resolve(case, Action.retry)

    await desk.status(case, CaseStatus.completed)
    assert await rma_state(desk, case) == "received"
    told = [f"attention.{cause}", "return_address", "refund_paid"]
    assert [(template, count) for template, _, count in await desk.messages(case)] == [(template, 1) for template in told]
    await desk.check_audit()


async def test_a_parcel_that_never_comes_is_reminded_of_once_and_then_frees_everything(desk: Desk, order: str) -> None:
    case = await back(desk, order)

    await desk.status(case, CaseStatus.expired)

    told = ["return_address", "parcel_reminder", "expired"]
    assert await desk.messages(case) == [(template, "buyer", 1) for template in told]
    assert await rma_state(desk, case) == "cancelled"
    assert await desk.booked(case) == {}
    again = await desk.request(order, f"{order}-2", lines=WHOLE)
    assert (await desk.status(again, CaseStatus.completed)).refunded == 10_000
    await desk.check_audit()


@pytest.mark.parametrize(("late", "paid"), [({"sellable": 2}, 10_000), ({"damaged": 1}, 2_500)])
async def test_a_parcel_that_is_sent_and_not_received_is_chased_until_its_receipt_resolves_it(
    desk: Desk, order: str, late: dict[str, int], paid: int
) -> None:
    case = await back(desk, order)
    await desk.tell(fact("parcel.returning", order, waybill=f"SF-{order}", sent_at=now().isoformat()))
    await desk.stuck(case, "goods_overdue")
    assert ("goods_chase", "merchant", 1) in await desk.messages(case)

    await desk.tell(receipt_event(f"{order}-P1", counted("1", **late), rma=case, final=True))

    assert (await desk.status(case, CaseStatus.completed)).refunded == paid
    await desk.check_audit()


# How facts find their case -----------------------------------------------------------------------------------------


async def test_facts_of_a_parcel_that_come_before_their_case_wait_for_it(desk: Desk, order: str) -> None:
    await desk.order(order, lines=lines())
    answers = await desk.tell(
        receipt_event(f"{order}-P1", counted(sellable=2), rma=case_id(order)),
        fact("parcel.returning", order, waybill=f"SF-{order}", sent_at=now().isoformat()),
    )
    assert [answer["status"] for answer in answers] == ["waiting", "waiting"]

    case = await desk.request(order, order, kind="return", lines=WHOLE)

    assert (await desk.status(case, CaseStatus.completed)).refunded == 10_000
    assert await goods_booked(desk, case) == {f"{order}-P1": stock(4_000)}
    await desk.check_audit()


async def test_a_receipt_that_names_only_a_waybill_finds_the_case_that_announced_it(desk: Desk, order: str) -> None:
    case = await back(desk, order)
    parcel = fact("parcel.returning", order, waybill=f"SF-{order}", sent_at=now().isoformat())
    receipt = receipt_event(f"{order}-P1", counted(sellable=2), waybill=f"SF-{order}")

    answers = await desk.tell(parcel, receipt)

    assert [answer["case_id"] for answer in answers] == [case, case]
    assert (await desk.status(case, CaseStatus.completed)).refunded == 10_000
    await desk.check_audit()


async def test_a_parcel_nobody_can_place_waits_in_the_orphan_pool_until_its_waybill_is_announced(
    desk: Desk, order: str
) -> None:
    case = await back(desk, order)
    receipt = receipt_event(f"{order}-P1", counted(sellable=2), waybill=f"SF-{order}")
    [answer] = await desk.tell(receipt)
    assert answer["status"] == "waiting"
    reason = f"data.rma: a parcel without an RMA, and waybill SF-{order} belongs to no case"
    assert reason in await desk.orphans()

    await desk.tell(fact("parcel.returning", order, waybill=f"SF-{order}", sent_at=now().isoformat()))

    assert (await desk.status(case, CaseStatus.completed)).refunded == 10_000
    assert reason not in await desk.orphans()
    [again] = await desk.tell(receipt)
    assert again["status"] == "duplicate"
    assert await goods_booked(desk, case) == {f"{order}-P1": stock(4_000)}
    await desk.check_audit()
