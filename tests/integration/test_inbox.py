"""What comes too early, twice, or just before a crash: nothing is lost, nothing is done twice."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from db.models import Case, InboxState, Order
from db.session import Database
from domain.cases import CaseStatus
from domain.errors import NotFound
from tests.desk import Desk, case_id, event, fact, now, order_events, request_event
from tests.integration.kit import ONE, Json, inbox, intake_on, policies, take, untold

AT_ONCE = timedelta(0)


async def state_of(db: Database, id_: str) -> tuple[InboxState, str]:
    [row] = await inbox(db, event_id=id_)
    return row.state, row.reason


async def count(db: Database, table: Any) -> int:
    async with db.read() as session:
        return int(await session.scalar(select(func.count()).select_from(table)) or 0)


async def test_a_request_on_an_order_that_is_not_known_yet_waits_and_is_delivered_when_it_comes(db: Database) -> None:
    async with intake_on(db) as intake:
        answer = await intake.post("/events", json=request_event("O1", "R1"), headers={"content-type": ONE})

        assert answer.status_code == 202
        told = {name: answer.json()[name] for name in ("status", "field", "reason")}
        assert told == {"status": "waiting", "field": "data.order_id", "reason": "order O1 is not known yet"}
        assert (await state_of(db, "R1-requested"))[0] is InboxState.waiting

        for one in order_events("O1"):
            assert (await intake.post("/events", json=one, headers={"content-type": ONE})).status_code == 202

    assert await state_of(db, "R1-requested") == (InboxState.accepted, "")
    assert await count(db, Case) == 1


async def test_what_waits_and_turns_out_to_be_wrong_is_rejected_then_with_the_reason(db: Database) -> None:
    await take(db, request_event("O1", "R1", currency="GBP"), *order_events("O1"))

    [row] = await inbox(db, type="aftersale.requested")
    assert (row.state, row.reason) == (InboxState.rejected, "data.currency: GBP asked on an order in CNY")
    assert [a.status for a in await take(db, request_event("O1", "R1"))] == ["accepted"]


async def test_what_waited_too_long_goes_to_the_orphan_pool_and_still_finds_its_order_when_it_comes(db: Database) -> None:
    await take(db, request_event("O1", "R1"))
    assert await untold(db).sweep(older_than=AT_ONCE) == 0
    assert (await state_of(db, "R1-requested"))[0] is InboxState.waiting

    assert await untold(db, order_wait=AT_ONCE).sweep(older_than=AT_ONCE) == 1

    pooled = (InboxState.orphan, "data.order_id: order O1 is not known yet; given up waiting")
    assert await state_of(db, "R1-requested") == pooled
    await take(db, *order_events("O1"))
    assert await state_of(db, "R1-requested") == (InboxState.accepted, "")


async def test_facts_of_an_order_that_is_not_known_yet_wait_for_it_too(db: Database) -> None:
    paid, shipped, delivered = order_events("O1")

    assert [a.status for a in await take(db, delivered, shipped, paid)] == ["waiting", "waiting", "accepted"]

    async with db.read() as session:
        [order] = await session.scalars(select(Order))
    assert (order.waybill, order.shipped_at is None, order.delivered_at is None) == ("SFO1", False, False)
    assert {row.state for row in await inbox(db)} == {InboxState.processed}


async def test_a_fact_waits_for_its_case(db: Database) -> None:
    withdrawn = fact("aftersale.withdrawn", "R1", withdrawn_at=now().isoformat())

    [answer] = await take(db, withdrawn)

    assert (answer.status, answer.reason) == ("waiting", f"case {case_id('R1')} is not known yet")
    await take(db, *order_events("O1"), request_event("O1", "R1"))
    assert await state_of(db, "R1-aftersale.withdrawn") == (InboxState.accepted, "")


async def test_a_parcel_that_nobody_announced_is_an_orphan_until_somebody_does(db: Database) -> None:
    line = {"line_id": "1", "quantity": 1, "grade": "sellable"}
    counted: Json = {"receipt_id": "W1", "warehouse": "east", "lines": [line], "received_at": now().isoformat()}
    [nameless, unknown] = await take(
        db,
        event("warehouse.received", "w1", **counted),
        event("warehouse.received", "w2", **counted, waybill="SF9"),
    )

    assert (nameless.status, nameless.field, nameless.reason) == ("waiting", "data.rma", "a parcel without an RMA")
    assert unknown.reason == "a parcel without an RMA, and waybill SF9 belongs to no case"
    assert {row.state for row in await inbox(db)} == {InboxState.orphan}


@pytest.mark.parametrize("what", ["order", "request", "waiting"])
async def test_twenty_deliveries_of_one_event_at_once_are_one(db: Database, what: str) -> None:
    await take(db, *(order_events("O1") if what == "request" else []))
    told = order_events("O1")[0] if what == "order" else request_event("O1", "R1")
    async with intake_on(db) as intake:
        posts = (intake.post("/events", json=told, headers={"content-type": ONE}) for _ in range(20))
        answers = await asyncio.gather(*posts)

    first = "waiting" if what == "waiting" else "accepted"
    assert Counter(a.json()["status"] for a in answers) == {first: 1, "duplicate": 19}
    assert Counter(a.status_code for a in answers) == {202: 1, 200: 19}
    assert len(await inbox(db, event_id=told["id"])) == 1


async def test_one_order_told_by_twenty_events_at_once_is_one_order(db: Database) -> None:
    starter, [paid, *_] = untold(db), order_events("O1")
    events = [paid | {"id": f"paid-{n}"} for n in range(20)]

    answers = await asyncio.gather(*(starter.take(one) for one in events))

    assert Counter(answer.status for answer in answers) == {"accepted": 1, "duplicate": 19}
    assert await count(db, Order) == 1


async def test_one_request_told_by_twenty_events_at_once_is_one_case(db: Database) -> None:
    await take(db, *order_events("O1"))
    starter = untold(db)
    events = [request_event("O1", "R1", id_=f"requested-{n}") for n in range(20)]

    answers = await asyncio.gather(*(starter.take(one) for one in events))

    assert Counter(answer.status for answer in answers) == {"accepted": 1, "duplicate": 19}
    assert await count(db, Case) == 1


async def test_what_a_crash_left_untold_the_sweeper_tells(desk: Desk) -> None:
    told: list[Json] = [*order_events("O1"), request_event("O1", "R1")]
    crashed = untold(desk.stack.db, rules=policies())
    assert [(await crashed.take(one)).status for one in told] == ["accepted"] * 4
    with pytest.raises(NotFound):
        await desk.stack.starter.view(case_id("R1"))

    assert await desk.stack.starter.sweep(older_than=AT_ONCE) == 1

    await desk.status(case_id("R1"), CaseStatus.completed)
    assert await state_of(desk.stack.db, "R1-requested") == (InboxState.processed, "")
    [(amount, state)] = [(one["amount"], one["state"]) for one in await desk.refunds_of("pay-O1")]
    assert (amount, state) == (5_000, "succeeded")
    await desk.check_audit()


async def test_a_fact_that_a_crash_left_untold_reaches_its_running_case(desk: Desk) -> None:
    await desk.order("O1")
    case = await desk.request("O1", "R1", kind="return")
    await desk.status(case, CaseStatus.awaiting_customer)
    withdrawn = fact("aftersale.withdrawn", "R1", withdrawn_at=now().isoformat())
    await untold(desk.stack.db).take(withdrawn)

    await desk.stack.starter.sweep(older_than=AT_ONCE)

    await desk.status(case, CaseStatus.withdrawn)
    await desk.check_audit()
