"""Money scenarios (M…): judged by the ledger, the provider's own books, and the audit."""

import asyncio

from domain.cases import Action, CaseStatus
from domain.effects import EffectKind, EffectState
from tests.desk import Desk, case_id, request_event


async def test_m3_a_timeout_is_unknown_until_the_lookup_shows_the_refund_and_nobody_calls_twice(desk: Desk) -> None:
    await desk.order("O1")
    await desk.fault("pay-O1", "lookup_blind", seconds=1.5)
    await desk.fault("pay-O1", "no_webhook")
    await desk.fault("pay-O1", "accept_then_drop")
    case = await desk.request("O1", "R1")

    await desk.status(case, CaseStatus.completed)

    [effect] = await desk.effects(case, EffectKind.refund)
    assert (effect.state, effect.calls) == (EffectState.succeeded, 1)
    assert [one["amount"] for one in await desk.refunds_of("pay-O1")] == [5_000]
    assert (await desk.books())["calls"] == 1
    assert await desk.messages(case) == [("refund_paid", "buyer", 1)]
    await desk.check_audit()


async def test_a_declined_refund_waits_for_a_person_and_a_retry_takes_a_new_key(desk: Desk) -> None:
    await desk.order("O1")
    await desk.fault("pay-O1", "refuse")
    case = await desk.request("O1", "R1")
    shown = await desk.status(case, CaseStatus.attention)
    assert shown.attention is not None
    assert shown.attention.cause == "refund_declined"

    await desk.resolve(case, Action.retry)
    await desk.status(case, CaseStatus.completed)

    states = {effect.key: effect.state for effect in await desk.effects(case, EffectKind.refund)}
    assert states == {
        f"refund:{case}:card:1": EffectState.declined,
        f"refund:{case}:card:2": EffectState.succeeded,
    }
    await desk.check_audit()


async def test_m2_twenty_parallel_requests_on_one_payment_never_exceed_what_was_captured(desk: Desk) -> None:
    lines = [{"line_id": "1", "sku": "TEA-1", "quantity": 10, "amount": 10_000}]
    await desk.order("O1", lines=lines)
    events = [request_event("O1", f"R{n}") for n in range(20)]
    await asyncio.gather(*(desk.tell(one) for one in events))

    ended = [await desk.status(case_id(f"R{n}"), CaseStatus.completed, CaseStatus.declined, within=40) for n in range(20)]

    assert sorted(case.status for case in ended) == [CaseStatus.completed] * 10 + [CaseStatus.declined] * 10
    paid = await desk.refunds_of("pay-O1")
    assert [one["amount"] for one in paid] == [1_000] * 10
    await desk.check_audit()
