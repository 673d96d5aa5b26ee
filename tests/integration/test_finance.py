"""Refunds planned over tenders on both databases: contended, repeated, cut off, and settled by a person."""

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest
from temporalio.exceptions import ApplicationError

from activities.effects import EffectLog
from activities.finance import Finance, RefundOrder, SettledByHand, SliceState
from adapters.payments.port import PaymentProvider, Refund
from db import effects, ledger, orders
from db.session import Database
from domain.cases import CaseRequest, Claim
from domain.effects import EffectState, Outcome
from domain.errors import DependencyDown, OutcomeUnknown
from domain.ledger import Account
from domain.settlement import Settlement, TenderOrder
from tests.desk import event, now
from tests.integration.kit import Json, inbox, opened, progress, take

CARD = {"tender_id": "card", "kind": "card", "provider": "sandbox", "payment_ref": "pay-card", "amount": 6_000}
WALLET = {"tender_id": "wallet", "kind": "voucher", "provider": "sandbox", "payment_ref": "pay-wallet", "amount": 4_000}
LINES = [{"line_id": "1", "sku": "TEA-1", "quantity": 10, "amount": 10_000}]
ORDER = {"lines": LINES, "tenders": [CARD, WALLET]}


class Provider:
    """Pays at once and remembers by key; refuses, hangs or is gone when told to."""

    def __init__(self) -> None:
        self.paid: dict[str, Refund] = {}
        self.calls: list[str] = []
        self.trouble: list[Outcome | Exception] = []

    async def submit(self, refund: Refund) -> Outcome:
        self.calls.append(refund.key)
        await asyncio.sleep(0)
        if self.trouble:
            trouble = self.trouble.pop(0)
            if isinstance(trouble, OutcomeUnknown):
                self.paid[refund.key] = refund
            if isinstance(trouble, Exception):
                raise trouble
            return trouble
        self.paid[refund.key] = refund
        return await self.look_up(refund)

    async def look_up(self, refund: Refund) -> Outcome:
        if refund.key not in self.paid:
            return Outcome(state=EffectState.unknown, cause="not_found")
        amount = self.paid[refund.key].amount
        return Outcome(state=EffectState.succeeded, reference=f"re-{refund.key}", amount=amount)

    def by_payment(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for refund in self.paid.values():
            found[refund.payment_ref] += refund.amount
        return found


@pytest.fixture
def provider() -> Provider:
    return Provider()


def finance(db: Database, provider: Provider) -> Finance:
    known: Mapping[str, PaymentProvider] = {"sandbox": provider}
    return Finance(db, EffectLog(db), dict(known))


def owed(request: CaseRequest, amount: int) -> Settlement:
    return Settlement(lines=(Claim(line_id="1", quantity=request.lines[0].quantity, amount=amount),))


def asks(request: CaseRequest, amount: int, round_: int = 1, order: TenderOrder = TenderOrder.original_first) -> RefundOrder:
    told = progress(request.case_id, revision=round_, approved=amount)
    return RefundOrder(progress=told, request=request, settlement=owed(request, amount), order=order, round=round_)


def shown(slices: list[SliceState]) -> list[tuple[str, int, str]]:
    return [(one.key.rpartition("R")[2], one.amount, one.state.value) for one in slices]


async def books(db: Database, request: CaseRequest) -> dict[str, int]:
    async with db.read() as session:
        held = {account.value: await ledger.held(session, account, request.case_id) for account in Account}
    return {account: amount for account, amount in held.items() if amount}


def settled(key: str, amount: int, id_: str = "settled-1") -> Json:
    """The provider's report that a refund was paid."""
    said = {"provider": "sandbox", "refund_key": key, "provider_ref": "re-9", "amount": amount, "currency": "CNY"}
    return event("payment.refund_settled", id_, source="/provider", **said, settled_at=now().isoformat())


PAID_5000 = {"sales_returns": 5_000, "payment_clearing": -5_000}


async def test_a_refund_larger_than_one_tender_goes_over_both_by_the_rule(db: Database, provider: Provider) -> None:
    first, second = await opened(db, "O1", "R1", "R2", order=ORDER)

    slices = await finance(db, provider).refund(asks(first, 5_000, order=TenderOrder.voucher_first))
    assert shown(slices) == [("1:card:1", 1_000, "succeeded"), ("1:wallet:1", 4_000, "succeeded")]
    slices = await finance(db, provider).refund(asks(second, 5_000, order=TenderOrder.voucher_first))
    assert shown(slices) == [("2:card:1", 5_000, "succeeded")]

    assert provider.by_payment() == {"pay-card": 6_000, "pay-wallet": 4_000}
    assert await books(db, first) == PAID_5000


async def test_twenty_refunds_at_once_on_two_tenders_never_exceed_either(db: Database, provider: Provider) -> None:
    requests = await opened(db, "O1", *(f"R{n}" for n in range(20)), order=ORDER)

    found = await asyncio.gather(*(finance(db, provider).refund(asks(one, 1_000)) for one in requests), return_exceptions=True)

    refused = [one for one in found if isinstance(one, BaseException)]
    assert all(isinstance(one, ApplicationError) and one.type == "Conflict" for one in refused), refused
    assert len(refused) == 10
    assert provider.by_payment() == {"pay-card": 6_000, "pay-wallet": 4_000}
    assert set(Counter(provider.calls).values()) == {1}
    async with db.read() as session:
        assert [tender.left for tender in await orders.tenders_left(session, requests[0].order_key)] == [0, 0]


async def test_the_same_refund_asked_for_again_and_at_once_is_one_refund(db: Database, provider: Provider) -> None:
    [request] = await opened(db, "O1", "R1", order=ORDER)
    desk = finance(db, provider)

    for _ in range(3):
        assert shown(await desk.refund(asks(request, 5_000))) == [("1:card:1", 5_000, "succeeded")]

    assert len(provider.calls) == 1
    assert await books(db, request) == PAID_5000


async def test_an_attempt_cut_off_after_the_first_slice_goes_on_with_the_second(db: Database, provider: Provider) -> None:
    [request] = await opened(db, "O1", "R1", order=ORDER)
    desk = finance(db, provider)
    provider.trouble = [OutcomeUnknown("cut"), DependencyDown("gone")]
    with pytest.raises(ApplicationError) as down:
        await desk.refund(asks(request, 8_000))
    assert (down.value.type, down.value.non_retryable) == ("DependencyDown", False)
    assert shown(await desk.slices(request.case_id)) == [("1:card:1", 6_000, "unknown"), ("1:wallet:1", 2_000, "planned")]

    slices = await desk.refund(asks(request, 8_000))

    assert shown(slices) == [("1:card:1", 6_000, "succeeded"), ("1:wallet:1", 2_000, "succeeded")]
    assert Counter(provider.calls) == {f"refund:{request.case_id}:card:1": 1, f"refund:{request.case_id}:wallet:1": 2}


async def test_after_a_decline_a_new_round_pays_what_is_still_owed_and_grants_it_once(db: Database, provider: Provider) -> None:
    [request] = await opened(db, "O1", "R1", order=ORDER)
    desk = finance(db, provider)
    provider.trouble = [Outcome(state=EffectState.declined, cause="card_closed")]
    assert shown(await desk.refund(asks(request, 5_000))) == [("1:card:1", 5_000, "declined")]
    assert await books(db, request) == {"sales_returns": 5_000, "refunds_payable": -5_000}

    slices = await desk.refund(asks(request, 5_000, round_=2))

    assert shown(slices) == [("1:card:1", 5_000, "declined"), ("1:card:2", 5_000, "succeeded")]
    assert await books(db, request) == PAID_5000


async def test_more_than_the_tenders_can_take_is_a_conflict_and_plans_nothing(db: Database, provider: Provider) -> None:
    [request] = await opened(db, "O1", "R1", order=ORDER)

    with pytest.raises(ApplicationError, match="10001 to refund, but the tenders can take back 10000") as refused:
        await finance(db, provider).refund(asks(request, 10_001))

    assert (refused.value.type, refused.value.non_retryable) == ("Conflict", True)
    assert await finance(db, provider).slices(request.case_id) == []
    assert await books(db, request) == {}


async def test_what_a_person_paid_by_voucher_concludes_what_is_unknown_and_leaves_the_tender_untouched(
    db: Database, provider: Provider
) -> None:
    [request] = await opened(db, "O1", "R1", order=ORDER)
    desk = finance(db, provider)
    provider.trouble = [Outcome(state=EffectState.unknown, cause="no_answer")]
    assert shown(await desk.refund(asks(request, 5_000))) == [("1:card:1", 5_000, "unknown")]

    paid = SettledByHand(
        progress=progress(request.case_id, revision=2), request=request, settlement=owed(request, 5_000), round=2, voucher="V1"
    )
    for _ in range(2):
        slices = await desk.settle_by_hand(paid)

    assert [(one.state, one.reference) for one in slices] == [(EffectState.succeeded, "voucher:V1")]
    assert await books(db, request) == {"sales_returns": 5_000, "paid_by_hand": -5_000}


async def test_what_was_granted_and_surely_not_paid_is_taken_back_and_what_is_unknown_never(
    db: Database, provider: Provider
) -> None:
    declined, unknown = await opened(db, "O1", "R1", "R2", order=ORDER)
    desk = finance(db, provider)
    provider.trouble = [Outcome(state=EffectState.declined), Outcome(state=EffectState.unknown, cause="no_answer")]
    await desk.refund(asks(declined, 3_000))
    await desk.refund(asks(unknown, 3_000))

    await desk.take_grant_back(progress(declined.case_id, revision=2))
    with pytest.raises(ApplicationError, match="is not known yet: it cannot be given up"):
        await desk.take_grant_back(progress(unknown.case_id, revision=2))

    assert await books(db, declined) == {}
    assert await books(db, unknown) == {"sales_returns": 3_000, "refunds_payable": -3_000}


async def test_a_lookup_records_what_the_provider_says_of_what_we_wait_for(db: Database, provider: Provider) -> None:
    [request] = await opened(db, "O1", "R1", order=ORDER)
    desk = finance(db, provider)
    provider.trouble = [OutcomeUnknown("cut")]
    await desk.refund(asks(request, 5_000))

    assert shown(await desk.look_up_refund(request.case_id)) == [("1:card:1", 5_000, "succeeded")]
    assert len(provider.calls) == 1
    assert await books(db, request) == PAID_5000
    async with db.read() as session:
        [row] = await effects.of_case(session, request.case_id)
    [standing] = await desk.standing([row.key])
    assert (standing.outcome.state, standing.outcome.amount) == (EffectState.succeeded, 5_000)


async def test_a_provider_s_report_is_booked_when_it_comes_in_and_once_however_often(db: Database, provider: Provider) -> None:
    [request] = await opened(db, "O1", "R1", order=ORDER)
    provider.trouble = [Outcome(state=EffectState.pending, reference="re-9", amount=5_000)]
    [slice_] = await finance(db, provider).refund(asks(request, 5_000))

    for n in range(3):
        [answer] = await take(db, settled(slice_.key, 5_000, f"settled-{n}"))
        assert (answer.status, answer.case_id) == ("accepted", request.case_id)

    assert await books(db, request) == PAID_5000
    [known] = await finance(db, provider).slices(request.case_id)
    assert (known.state, known.reference) == (EffectState.succeeded, "re-9")


async def test_a_report_that_a_refund_settled_by_hand_was_paid_after_all_is_shown_to_people(
    db: Database, provider: Provider
) -> None:
    [request] = await opened(db, "O1", "R1", order=ORDER)
    provider.trouble = [OutcomeUnknown("cut")]
    [slice_] = await finance(db, provider).refund(asks(request, 5_000))
    told, owes = progress(request.case_id, revision=2), owed(request, 5_000)
    by_hand = SettledByHand(progress=told, request=request, settlement=owes, round=2, voucher="V1")
    await finance(db, provider).settle_by_hand(by_hand)

    await take(db, settled(slice_.key, 5_000))

    [row] = await inbox(db, source="/provider")
    twice = f"{slice_.key} was settled by hand and is now reported paid: it may be paid twice"
    assert (row.state.value, row.case_id, row.reason) == ("orphan", request.case_id, twice)
    assert await books(db, request) == {"sales_returns": 5_000, "paid_by_hand": -5_000}


async def test_a_report_on_a_refund_that_we_did_not_ask_for_is_shown_to_people(db: Database) -> None:
    await take(db, settled("refund:of:somebody:else", 5_000))

    [row] = await inbox(db)
    assert (row.state.value, row.reason) == ("orphan", "data.refund_key: a refund that we did not ask for")
