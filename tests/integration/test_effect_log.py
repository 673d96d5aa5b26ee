"""The effect log on both databases: one key, one effect, whatever dies, hangs or is told twice."""

import pytest

from activities.effects import EffectLog
from db import effects, ledger
from db.effects import RefundIntent
from db.models import EffectRow
from db.session import Database
from domain.effects import EffectKind, EffectState, Outcome
from domain.errors import AftersalesError, Conflict, DependencyDown, OutcomeUnknown, RateLimited
from domain.ledger import Account
from tests.desk import now

CASE, KEY = "lanhua:tmall:R1", "refund:lanhua:tmall:R1:card:1"
INTENT = RefundIntent(
    key=KEY,
    case_id=CASE,
    kind=EffectKind.refund,
    content="5000 CNY",
    provider="sandbox",
    order_key="lanhua:tmall:O1",
    tender_id="card",
    round=1,
    amount=5_000,
    currency="CNY",
)
PAID = Outcome(state=EffectState.succeeded, reference="re_1", amount=5_000)
PENDING = Outcome(state=EffectState.pending, reference="re_1", amount=5_000)
FAILED = Outcome(state=EffectState.failed, reference="re_1", amount=5_000, cause="card_closed")
DECLINED = Outcome(state=EffectState.declined, cause="card_closed", detail="no such card")
NOT_FOUND = Outcome(state=EffectState.unknown, cause="not_found")
MOVED = {Account.refunds_payable: 5_000, Account.payment_clearing: -5_000}


class OtherSide:
    """Answers call by call, and counts."""

    def __init__(self, *answers: Outcome | BaseException) -> None:
        self.answers, self.asked = list(answers), 0

    async def __call__(self) -> Outcome:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Killed(BaseException):
    """The process ends here."""


async def row_of(db: Database, key: str = KEY) -> EffectRow:
    async with db.read() as session:
        return await session.get_one(EffectRow, key)


async def told(db: Database, *outcomes: Outcome, by_hand: bool = False) -> EffectRow:
    """Plan the refund, begin it, and conclude it by these outcomes, each in a commit of its own."""
    async with db.write() as session:
        row = await effects.plan(session, INTENT, now())
        if row.state is EffectState.planned:
            effects.begin(row, now())
    for outcome in outcomes:
        async with db.write() as session:
            await effects.conclude(session, KEY, outcome, now(), by_hand=by_hand)
    return await row_of(db)


async def books(db: Database) -> dict[Account, int]:
    """What the case left on each account."""
    async with db.read() as session:
        held = {account: await ledger.held(session, account, CASE) for account in Account}
    return {account: amount for account, amount in held.items() if amount}


async def test_a_key_that_stands_for_something_else_is_a_conflict_and_the_first_stays(db: Database) -> None:
    async with db.write() as session:
        await effects.plan(session, INTENT, now())
    with pytest.raises(Conflict, match=f"effect key {KEY} already stands for another content"):
        async with db.write() as session:
            await effects.plan(session, INTENT.model_copy(update={"content": "9000 CNY"}), now())

    async with db.write() as session:
        again = await effects.plan(session, INTENT, now())
    assert (again.content, again.state, again.calls) == ("5000 CNY", EffectState.planned, 0)


async def test_a_confirmed_refund_is_booked_in_the_same_commit_and_only_once(db: Database) -> None:
    assert (await told(db, PENDING)).state is EffectState.pending
    assert await books(db) == {}

    row = await told(db, PAID, PAID, PENDING)

    assert (row.state, row.reference, row.concluded_at is None) == (EffectState.succeeded, "re_1", False)
    assert await books(db) == MOVED
    async with db.read() as session:
        assert [entry.key for entry in await ledger.of_case(session, CASE)] == [f"move:{KEY}"]


async def test_an_echo_changes_nothing(db: Database) -> None:
    first = await told(db, PAID)

    second = await told(db, PAID.model_copy(update={"reference": "re_2", "detail": "again"}))

    assert (second.reference, second.detail, second.concluded_at) == ("re_1", "", first.concluded_at)


async def test_a_key_that_is_not_ours_concludes_nothing(db: Database) -> None:
    async with db.write() as session:
        assert await effects.conclude(session, "refund:of:somebody:else", PAID, now()) is None
    assert await books(db) == {}


async def test_another_amount_than_asked_for_is_unknown_until_somebody_looked(db: Database) -> None:
    row = await told(db, PAID.model_copy(update={"amount": 4_900}))

    assert (row.state, row.cause) == (EffectState.unknown, "amount_differs")
    assert row.detail == "asked for 5000, the provider reports 4900 succeeded"
    assert await books(db) == {}
    assert (await told(db, PAID)).state is EffectState.succeeded
    assert await books(db) == MOVED


async def test_a_refund_that_the_provider_takes_back_is_reversed_once(db: Database) -> None:
    row = await told(db, PAID, FAILED, FAILED, PAID)

    assert (row.state, row.cause) == (EffectState.failed, "card_closed")
    assert await books(db) == {}
    async with db.read() as session:
        assert [entry.key for entry in await ledger.of_case(session, CASE)] == [f"move:{KEY}", f"reverse:move:{KEY}"]


async def test_a_refund_taken_back_after_an_amount_that_differed_is_reversed_too(db: Database) -> None:
    row = await told(db, PAID, FAILED.model_copy(update={"amount": 4_900}), FAILED)

    assert row.state is EffectState.failed
    assert await books(db) == {}


@pytest.mark.parametrize("late", [PAID, PENDING, FAILED])
async def test_a_late_report_on_what_was_settled_by_hand_changes_nothing(db: Database, late: Outcome) -> None:
    voucher = Outcome(state=EffectState.succeeded, reference="voucher:V1")
    await told(db, voucher, by_hand=True)

    row = await told(db, late)

    assert (row.state, row.reference, row.by_hand) == (EffectState.succeeded, "voucher:V1", True)
    assert await books(db) == {Account.refunds_payable: 5_000, Account.paid_by_hand: -5_000}


async def test_once_calls_once_and_answers_the_outcome_ever_after(db: Database) -> None:
    call, look_up = OtherSide(PAID), OtherSide()

    rows = [await EffectLog(db).perform_once(INTENT, call, look_up) for _ in range(3)]

    assert [(row.state, row.calls) for row in rows] == [(EffectState.succeeded, 1)] * 3
    assert (call.asked, look_up.asked) == (1, 0)


async def test_a_process_killed_between_the_call_and_its_outcome_is_looked_up_and_not_called_again(db: Database) -> None:
    call, look_up = OtherSide(Killed()), OtherSide(PENDING)
    with pytest.raises(Killed):
        await EffectLog(db).perform_once(INTENT, call, look_up)
    assert (await row_of(db)).state is EffectState.unknown

    row = await EffectLog(db).perform_once(INTENT, call, look_up)

    assert (row.state, row.calls) == (EffectState.pending, 1)
    assert (call.asked, look_up.asked) == (1, 1)


@pytest.mark.parametrize("down", [DependencyDown("gone"), RateLimited("later", retry_after=2)])
async def test_what_surely_did_not_happen_is_planned_again_and_called_again(db: Database, down: AftersalesError) -> None:
    call, look_up = OtherSide(down, DECLINED), OtherSide()
    with pytest.raises(DependencyDown):
        await EffectLog(db).perform_once(INTENT, call, look_up)
    assert (await row_of(db)).state is EffectState.planned

    row = await EffectLog(db).perform_once(INTENT, call, look_up)

    assert (row.state, row.cause, row.calls) == (EffectState.declined, "card_closed", 2)
    assert (call.asked, look_up.asked) == (2, 0)


async def test_no_answer_is_unknown_and_stays_so_while_nobody_can_tell(db: Database) -> None:
    call = OtherSide(OutcomeUnknown("the line was cut"))
    row = await EffectLog(db).perform_once(INTENT, call, OtherSide())
    assert (row.state, row.cause, row.detail) == (EffectState.unknown, "no_answer", "the line was cut")

    blind = OtherSide(NOT_FOUND, DependencyDown("gone"))
    row = await EffectLog(db).perform_once(INTENT, call, blind)
    assert (row.state, row.cause) == (EffectState.unknown, "not_found")
    row = await EffectLog(db).perform_once(INTENT, call, blind)
    assert (row.state, row.cause) == (EffectState.unknown, "lookup_failed")
    assert call.asked == 1


async def test_a_person_may_have_the_same_key_sent_once_more_if_the_lookup_still_shows_nothing(db: Database) -> None:
    call = OtherSide(OutcomeUnknown("cut"), PAID)
    await EffectLog(db).perform_once(INTENT, call, OtherSide())

    unsure = await EffectLog(db).perform_once(INTENT, call, OtherSide(DependencyDown("gone")), again=True)
    assert (unsure.state, call.asked) == (EffectState.unknown, 1)
    row = await EffectLog(db).perform_once(INTENT, call, OtherSide(NOT_FOUND), again=True)

    assert (row.state, row.calls, call.asked) == (EffectState.succeeded, 2, 2)


async def test_a_key_sent_again_in_vain_is_as_unknown_as_before(db: Database) -> None:
    call = OtherSide(OutcomeUnknown("cut"), DependencyDown("gone"))
    await EffectLog(db).perform_once(INTENT, call, OtherSide())

    with pytest.raises(DependencyDown):
        await EffectLog(db).perform_once(INTENT, call, OtherSide(NOT_FOUND), again=True)

    assert (await row_of(db)).state is EffectState.unknown


async def test_a_repeatable_effect_is_called_until_it_succeeded_and_a_decline_is_asked_again(db: Database) -> None:
    call = OtherSide(OutcomeUnknown("cut"), DECLINED, Killed(), PAID)
    log = EffectLog(db)

    with pytest.raises(OutcomeUnknown):
        await log.perform(INTENT, call)
    assert (await log.perform(INTENT, call)).state is EffectState.declined
    with pytest.raises(Killed):
        await log.perform(INTENT, call)
    row = await log.perform(INTENT, call)

    assert (row.state, row.calls) == (EffectState.succeeded, 4)
    assert (await log.perform(INTENT, call)).calls == 4
    assert call.asked == 4
