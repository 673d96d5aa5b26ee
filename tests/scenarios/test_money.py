"""Money scenarios (M…): judged by the ledger, the provider's own books, the messages that arrived, and the audit.

Announced goods arrive at once and in full here, so that what is true of the money is shown for both kinds of case."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from aiosmtpd.smtp import SMTP, Envelope, Session

from db import effects
from db.effects import RefundIntent
from domain.cases import Action, CaseStatus, Tracks, TrackState
from domain.effects import EffectKind, EffectState, refund_key
from domain.errors import Conflict, NotFound
from domain.policy import Verdict
from settings import Settings
from tests.conftest import POLICIES
from tests.desk import Desk, case_id, desk_on, event, now, policies_with, request_event

BOTH_KINDS = pytest.mark.parametrize("kind", ["refund", "return"])
WHOLE = [{"line_id": "1", "quantity": 2}]
"""Both units of the usual order, CNY 100.00."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """One stack for all: each test has an order, and with it a payment, of its own."""
    async with _desk(tmp_path_factory.mktemp("money")) as running:
        yield running


@pytest.fixture
def order() -> str:
    """An order id that no other test has; the payment of its card is `pay-{order}`."""
    return f"O-{uuid4().hex[:8]}"


def two_tenders(order: str) -> list[dict[str, Any]]:
    """CNY 70.01 by card and CNY 29.99 by voucher."""
    paid = {"card": 7_001, "voucher": 2_999}
    return [
        {"tender_id": kind, "kind": kind, "provider": "sandbox", "payment_ref": f"{kind}-{order}", "amount": amount}
        for kind, amount in paid.items()
    ]


def _desk(tmp_path: Path, **settings: Any) -> Any:
    chosen = {"data_dir": tmp_path / "data", "policies": POLICIES} | settings
    return desk_on(Settings(**chosen), auto_receive_seconds=0.1)


async def _told(desk: Desk, case: str) -> list[str]:
    """What the buyer was told about the money, each once."""
    messages = await desk.messages(case)
    assert {count for _, _, count in messages} <= {1}
    return [template for template, recipient, _ in messages if recipient == "buyer" and template != "return_address"]


async def _one_refund(desk: Desk, case: str, payment_ref: str, amount: int = 5_000) -> None:
    """Moved once, under one key, and booked once."""
    assert [(one["amount"], one["state"]) for one in await desk.refunds_of(payment_ref)] == [(amount, "succeeded")]
    [effect] = await desk.effects(case, EffectKind.refund)
    assert (effect.state, effect.amount) == (EffectState.succeeded, amount)
    assert [key for key in await desk.booked(case) if key.startswith("move:")] == ["move:refund:*:card:1"]
    assert (await desk.case(case)).refunded == amount


async def _states(desk: Desk, case: str) -> dict[str, tuple[int | None, str]]:
    """{tender:round: (amount, state)} of a case's refund keys."""
    rows = await desk.effects(case, EffectKind.refund)
    return {row.key.removeprefix(f"refund:{case}:"): (row.amount, row.state.value) for row in rows}


async def _calls(desk: Desk) -> int:
    """How often the provider was asked for a refund since the stack started."""
    return int((await desk.books())["calls"])


async def _outcomes(asked: Iterable[Awaitable[Any]]) -> Counter[str]:
    """What became of things asked at once: `done`, or the name of the error."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    return Counter(type(one).__name__ if isinstance(one, BaseException) else "done" for one in answers)


# Many at once ------------------------------------------------------------------------------------------------------


@BOTH_KINDS
async def test_m2_twenty_parallel_requests_on_one_payment_never_exceed_what_was_captured(
    desk: Desk, order: str, kind: str
) -> None:
    before = await _calls(desk)
    await desk.order(order, lines=[{"line_id": "1", "sku": "TEA-1", "quantity": 10, "amount": 10_000}])
    await asyncio.gather(*(desk.tell(request_event(order, f"{order}-{n}", kind=kind)) for n in range(20)))

    ended = [
        await desk.status(case_id(f"{order}-{n}"), CaseStatus.completed, CaseStatus.declined, within=40) for n in range(20)
    ]

    assert Counter(case.status for case in ended) == {CaseStatus.completed: 10, CaseStatus.declined: 10}
    assert [one["amount"] for one in await desk.refunds_of(f"pay-{order}")] == [1_000] * 10
    assert await _calls(desk) - before == 10
    await desk.check_audit()


@BOTH_KINDS
async def test_m2_two_equal_distinct_slices_both_pass(desk: Desk, order: str, kind: str) -> None:
    await desk.order(order)
    references = [f"{order}-1", f"{order}-2"]
    await asyncio.gather(*(desk.tell(request_event(order, reference, kind=kind)) for reference in references))

    for case in map(case_id, references):
        await desk.status(case, CaseStatus.completed)

    refunds = await desk.refunds_of(f"pay-{order}")
    assert {(one["key"], one["amount"]) for one in refunds} == {(f"refund:{case_id(r)}:card:1", 5_000) for r in references}
    await desk.check_audit()


@BOTH_KINDS
async def test_m8_of_people_who_decide_at_once_the_first_counts_and_one_refund_is_made(
    desk: Desk, order: str, kind: str
) -> None:
    await desk.order(order, lines=[{"line_id": "1", "sku": "TEA-1", "quantity": 2, "amount": 120_000}])
    case = await desk.request(order, order, kind=kind)
    await desk.status(case, CaseStatus.in_review)

    answers = await _outcomes(desk.decide(case, Verdict.approve, by=by) for by in ("li", "wang", "li"))

    assert answers == {"done": 1, "Conflict": 2}
    await desk.status(case, CaseStatus.completed)
    await _one_refund(desk, case, f"pay-{order}", 60_000)
    await desk.check_audit()


@BOTH_KINDS
async def test_m8_of_people_who_resolve_at_once_the_first_counts_and_one_refund_is_made(
    desk: Desk, order: str, kind: str
) -> None:
    await desk.order(order)
    await desk.fault(f"pay-{order}", "refuse")
    await desk.fault(f"pay-{order}", "settle_later", seconds=1)
    case = await desk.request(order, order, kind=kind)
    await desk.stuck(case, "refund_declined")

    answers = await _outcomes(desk.resolve(case, Action.retry, by=by) for by in ("li", "wang", "li"))

    assert answers == {"done": 1, "Conflict": 2}
    await desk.status(case, CaseStatus.completed)
    assert await _states(desk, case) == {"card:1": (5_000, "declined"), "card:2": (5_000, "succeeded")}
    assert [one["amount"] for one in await desk.refunds_of(f"pay-{order}")] == [5_000]
    with pytest.raises((Conflict, NotFound)):
        await desk.resolve(case, Action.retry)
    await desk.check_audit()


@BOTH_KINDS
async def test_m8_a_request_posted_several_times_at_once_is_one_case_and_one_refund(desk: Desk, order: str, kind: str) -> None:
    await desk.order(order)
    same = request_event(order, order, kind=kind)
    again = request_event(order, order, kind=kind, id_=f"{order}-clicked-twice")
    answers = [answer for [answer] in await asyncio.gather(*(desk.tell(one) for one in (same, same, again)))]

    assert {answer["case_id"] for answer in answers} == {case_id(order)}
    await desk.status(case_id(order), CaseStatus.completed)
    await _one_refund(desk, case_id(order), f"pay-{order}")
    await desk.check_audit()


# What the provider does --------------------------------------------------------------------------------------------


@BOTH_KINDS
async def test_m3_a_timeout_is_unknown_until_the_lookup_shows_the_refund_and_nobody_calls_twice(
    desk: Desk, order: str, kind: str
) -> None:
    before = await _calls(desk)
    await desk.order(order)
    await desk.fault(f"pay-{order}", "lookup_blind", seconds=1.5)
    await desk.fault(f"pay-{order}", "no_webhook")
    await desk.fault(f"pay-{order}", "accept_then_drop")
    case = await desk.request(order, order, kind=kind)
    await desk.until(lambda: desk.refunds_of(f"pay-{order}"))
    assert await _told(desk, case) == []

    await desk.status(case, CaseStatus.completed)

    await _one_refund(desk, case, f"pay-{order}")
    assert await _calls(desk) - before == 1
    assert await _told(desk, case) == ["refund_paid"]
    await desk.check_audit()


async def test_m3_a_refund_that_shows_after_we_asked_a_person_ends_the_case_without_one(desk: Desk, order: str) -> None:
    before = await _calls(desk)
    await desk.order(order)
    await desk.fault(f"pay-{order}", "lookup_blind", seconds=4.5)
    await desk.fault(f"pay-{order}", "no_webhook")
    await desk.fault(f"pay-{order}", "accept_then_drop")
    case = await desk.request(order, order)
    shown = await desk.stuck(case, "outcome_unknown")
    assert Action.abandon not in (shown.attention.actions if shown.attention else ())

    await desk.status(case, CaseStatus.completed)

    await _one_refund(desk, case, f"pay-{order}")
    assert await _calls(desk) - before == 1
    await desk.check_audit()


@pytest.mark.parametrize(
    ("kind", "action", "way", "slices"),
    [
        ("refund", Action.retry, {}, {"card:2": (5_000, "succeeded")}),
        (
            "return",
            Action.amend,
            {"tender_id": "voucher"},
            {"voucher:2": (2_999, "succeeded"), "card:2": (2_001, "succeeded")},
        ),
    ],
)
async def test_m4_a_refund_that_fails_days_after_it_was_pending_reopens_the_money_and_nothing_else(
    desk: Desk, order: str, kind: str, action: Action, way: dict[str, Any], slices: dict[str, tuple[int, str]]
) -> None:
    await desk.order(order, tenders=two_tenders(order))
    await desk.fault(f"card-{order}", "fail_later", seconds=0.7)
    case = await desk.request(order, order, kind=kind)

    failed = await desk.stuck(case, "refund_failed")

    goods_in = TrackState.done if kind == "return" else TrackState.none
    assert failed.tracks == Tracks(goods_in=goods_in, money=TrackState.stuck)
    grant = {"sales_returns": 5_000, "refunds_payable": -5_000}
    back_in_stock = {"stock": 3_000, "goods_sold": -3_000}
    assert list((await desk.booked(case)).values()) == ([back_in_stock, grant] if kind == "return" else [grant])
    assert await _told(desk, case) == []

    await desk.resolve(case, action, **way)
    done = await desk.status(case, CaseStatus.completed)

    assert (done.refunded, done.tracks.money) == (5_000, TrackState.done)
    assert await _states(desk, case) == {"card:1": (5_000, "failed"), **slices}
    assert await _told(desk, case) == ["refund_paid"]
    await desk.check_audit()


@BOTH_KINDS
@pytest.mark.parametrize("fault", ["webhook_first", "duplicate_webhook"])
async def test_m6_our_own_refund_told_back_several_times_is_booked_once(desk: Desk, order: str, kind: str, fault: str) -> None:
    await desk.order(order)
    await desk.fault(f"pay-{order}", fault)
    case = await desk.request(order, order, kind=kind)

    await desk.status(case, CaseStatus.completed)

    await _one_refund(desk, case, f"pay-{order}")
    payable = [lines["refunds_payable"] for lines in (await desk.booked(case)).values() if "refunds_payable" in lines]
    assert payable == [-5_000, 5_000]
    assert await _told(desk, case) == ["refund_paid"]
    await desk.check_audit()


async def test_m10_a_provider_that_forgets_keys_and_takes_over_refunds_is_asked_once_a_key(order: str, tmp_path: Path) -> None:
    async with _desk(tmp_path, http_timeout_seconds=1.0) as desk:
        await desk.order(order, lines=[{"line_id": "1", "sku": "TEA-1", "quantity": 6, "amount": 12_000}])
        await desk.fault(f"pay-{order}", "forget_idempotency", times=None)
        await desk.fault(f"pay-{order}", "accept_over_refund", times=None)
        mishaps = ["accept_then_drop", "accept_then_error", "garbage", "slow", "webhook_first", "rate_limit"]
        for fault in mishaps:
            key = refund_key(case_id(fault), "card", 1)
            await desk.fault(key, fault, seconds=1.5 if fault == "slow" else 0)
        await asyncio.gather(*(desk.tell(request_event(order, fault)) for fault in mishaps))

        for fault in mishaps:
            await desk.status(case_id(fault), CaseStatus.completed)

        books = await desk.books()
        assert (books["refunds"], books["succeeded_amount"], books["duplicated_keys"]) == (6, 12_000, 0)
        assert books["calls"] == 7  # the one that was told to come later came again
        [beyond] = await desk.tell(request_event(order, "beyond"))
        await desk.status(beyond["case_id"], CaseStatus.declined)
        assert await desk.books() == books
        await desk.check_audit()


@BOTH_KINDS
async def test_m10_a_person_sends_an_unknown_refund_again_under_the_same_key(desk: Desk, order: str, kind: str) -> None:
    before = await _calls(desk)
    await desk.order(order)
    await desk.fault(f"pay-{order}", "forget_idempotency", times=None)
    await desk.fault(f"pay-{order}", "error")
    case = await desk.request(order, order, kind=kind)
    await desk.stuck(case, "outcome_unknown")
    assert await desk.refunds_of(f"pay-{order}") == []

    await desk.resolve(case, Action.retry)
    await desk.status(case, CaseStatus.completed)

    await _one_refund(desk, case, f"pay-{order}")
    assert await _calls(desk) - before == 2
    await desk.check_audit()


async def test_m10_never_above_captured_where_others_refunded_on_the_same_payment(desk: Desk, order: str) -> None:
    await desk.order(order)
    await desk.fault(f"pay-{order}", "accept_over_refund", times=None)
    elsewhere = RefundIntent(
        key="refund:elsewhere:card:1", case_id="elsewhere", kind=EffectKind.refund, content="", provider="sandbox",
        order_key=f"lanhua:tmall:{order}", tender_id="card", round=1, amount=8_000, currency="CNY",
    )  # fmt: skip
    async with desk.stack.db.write() as session:
        await effects.plan(session, elsewhere, now())
    case = await desk.request(order, order)
    await desk.stuck(case, "tenders_exhausted")
    assert await desk.refunds_of(f"pay-{order}") == []

    await desk.resolve(case, Action.amend, amount=2_000)
    await desk.status(case, CaseStatus.completed)

    assert [one["amount"] for one in await desk.refunds_of(f"pay-{order}")] == [2_000]
    await desk.check_audit()


async def test_a_provider_that_asks_to_come_later_is_asked_again_and_in_the_end_a_person_is(desk: Desk, order: str) -> None:
    await desk.order(order)
    await desk.order(other := f"{order}-2")
    await desk.fault(f"pay-{order}", "rate_limit")
    await desk.fault(f"pay-{other}", "rate_limit", times=None)
    soon, never = await desk.request(order, order), await desk.request(other, other)

    await desk.status(soon, CaseStatus.completed)
    await _one_refund(desk, soon, f"pay-{order}")

    await desk.stuck(never, "provider_down")
    assert await desk.refunds_of(f"pay-{other}") == []
    await desk.sandbox.delete("/faults")
    await desk.resolve(never, Action.retry)
    await desk.status(never, CaseStatus.completed)
    await _one_refund(desk, never, f"pay-{other}")
    await desk.check_audit()


async def test_a_refund_without_any_webhook_is_confirmed_by_our_own_lookup(desk: Desk, order: str) -> None:
    await desk.order(order)
    await desk.fault(f"pay-{order}", "no_webhook")
    case = await desk.request(order, order)

    await desk.status(case, CaseStatus.completed)

    await _one_refund(desk, case, f"pay-{order}")
    await desk.check_audit()


async def test_an_amount_that_differs_from_the_one_asked_is_booked_by_a_person_only(desk: Desk, order: str) -> None:
    await desk.order(order)
    await desk.fault(f"pay-{order}", "settle_later", seconds=60)
    case = await desk.request(order, order)
    [pending] = await desk.until(lambda: desk.refunds_of(f"pay-{order}"))
    report = {"provider": "sandbox", "refund_key": pending["key"], "provider_ref": pending["refund_id"], "currency": "CNY"}
    settled = {"amount": 4_000, "settled_at": now().isoformat()}
    await desk.tell(event("payment.refund_settled", "psp-1", source="/psp", **report, **settled))

    shown = await desk.stuck(case, "amount_differs")
    assert shown.refunded == 0
    assert await _told(desk, case) == []
    with pytest.raises(Conflict, match="allows settle-by-hand, not retry"):
        await desk.resolve(case, Action.retry)

    await desk.resolve(case, Action.settle_by_hand, voucher="V-1")
    done = await desk.status(case, CaseStatus.completed)

    assert done.refunded == 5_000
    assert (await desk.booked(case))["move:refund:*:card:1"] == {"refunds_payable": 5_000, "paid_by_hand": -5_000}
    await desk.check_audit()


# What people do ----------------------------------------------------------------------------------------------------


@BOTH_KINDS
async def test_a_declined_refund_waits_for_a_person_and_a_retry_takes_a_new_key(desk: Desk, order: str, kind: str) -> None:
    await desk.order(order)
    await desk.fault(f"pay-{order}", "refuse")
    case = await desk.request(order, order, kind=kind)
    await desk.stuck(case, "refund_declined")

    await desk.resolve(case, Action.retry)
    await desk.status(case, CaseStatus.completed)

    assert await _states(desk, case) == {"card:1": (5_000, "declined"), "card:2": (5_000, "succeeded")}
    await desk.check_audit()


@BOTH_KINDS
async def test_of_two_tenders_only_the_slice_that_was_refused_is_sent_again(desk: Desk, order: str, kind: str) -> None:
    await desk.order(order, tenders=two_tenders(order))
    await desk.fault(f"voucher-{order}", "refuse")
    case = await desk.request(order, order, kind=kind, lines=WHOLE)
    shown = await desk.stuck(case, "refund_declined")
    assert shown.refunded == 7_001

    await desk.resolve(case, Action.retry)
    await desk.status(case, CaseStatus.completed)

    moved = {"card:1": (7_001, "succeeded"), "voucher:1": (2_999, "declined"), "voucher:2": (2_999, "succeeded")}
    assert await _states(desk, case) == moved
    assert [one["amount"] for one in await desk.refunds_of(f"card-{order}")] == [7_001]
    assert [one["amount"] for one in await desk.refunds_of(f"voucher-{order}")] == [2_999]
    await desk.check_audit()


@BOTH_KINDS
async def test_a_refund_settled_by_hand_is_booked_to_its_voucher_and_the_provider_hears_nothing_more(
    desk: Desk, order: str, kind: str
) -> None:
    before = await _calls(desk)
    await desk.order(order)
    await desk.fault(f"pay-{order}", "refuse")
    case = await desk.request(order, order, kind=kind)
    await desk.stuck(case, "refund_declined")

    await desk.resolve(case, Action.settle_by_hand, voucher="V-1")
    done = await desk.status(case, CaseStatus.completed)

    assert done.refunded == 5_000
    assert (await desk.booked(case))["move:refund:*:by-hand:2"] == {"refunds_payable": 5_000, "paid_by_hand": -5_000}
    assert await _calls(desk) - before == 1
    assert await desk.refunds_of(f"pay-{order}") == []
    await desk.check_audit()


async def test_a_late_webhook_for_a_refund_settled_by_hand_is_an_orphan_that_warns_of_paying_twice(
    order: str, tmp_path: Path
) -> None:
    policies = policies_with(tmp_path / "policies", payment={"unknown_for": "1s"})
    async with _desk(tmp_path, policies=policies) as desk:
        await desk.order(order)
        await desk.fault(f"pay-{order}", "lookup_blind", seconds=60)
        await desk.fault(f"pay-{order}", "settle_later", seconds=4)
        await desk.fault(f"pay-{order}", "accept_then_drop")
        case = await desk.request(order, order)
        await desk.stuck(case, "outcome_unknown")

        await desk.resolve(case, Action.settle_by_hand, voucher="V-1")
        await desk.status(case, CaseStatus.completed)
        booked = await desk.booked(case)
        [reason] = await desk.until(desk.orphans)

        assert reason == f"refund:{case}:card:1 was settled by hand and is now reported paid: it may be paid twice"
        assert await desk.booked(case) == booked
        assert booked["move:refund:*:card:1"] == {"refunds_payable": 5_000, "paid_by_hand": -5_000}
        await desk.check_audit()


@BOTH_KINDS
async def test_abandoning_a_declined_refund_takes_the_grant_back_and_frees_what_was_claimed(
    desk: Desk, order: str, kind: str
) -> None:
    await desk.order(order)
    await desk.fault(f"pay-{order}", "refuse")
    case = await desk.request(order, order, kind=kind, lines=WHOLE)
    await desk.stuck(case, "refund_declined")

    await desk.resolve(case, Action.abandon)
    await desk.status(case, CaseStatus.declined)

    booked = await desk.booked(case)
    assert sum(lines.get("refunds_payable", 0) for lines in booked.values()) == 0
    assert sum(lines.get("sales_returns", 0) for lines in booked.values()) == 0
    assert await _told(desk, case) == ["declined"]
    again = await desk.request(order, f"{order}-2", lines=WHOLE)
    await desk.status(again, CaseStatus.completed)
    assert [one["amount"] for one in await desk.refunds_of(f"pay-{order}")] == [10_000]
    await desk.check_audit()


async def test_abandoning_the_rest_of_a_partly_paid_refund_keeps_what_was_paid(desk: Desk, order: str) -> None:
    await desk.order(order, tenders=two_tenders(order))
    await desk.fault(f"voucher-{order}", "refuse")
    case = await desk.request(order, order, lines=WHOLE)
    await desk.stuck(case, "refund_declined")

    await desk.resolve(case, Action.abandon)
    done = await desk.status(case, CaseStatus.completed)

    assert done.refunded == 7_001
    assert sum(lines.get("sales_returns", 0) for lines in (await desk.booked(case)).values()) == 7_001
    [again] = await desk.tell(request_event(order, f"{order}-2"))
    await desk.status(again["case_id"], CaseStatus.declined)
    await desk.check_audit()


@BOTH_KINDS
@pytest.mark.parametrize(("amount", "slices"), [(8_000, {"voucher:2": (999, "succeeded")}), (7_001, {})])
async def test_an_amount_lowered_by_a_person_is_what_is_refunded_in_all(
    desk: Desk, order: str, kind: str, amount: int, slices: dict[str, tuple[int, str]]
) -> None:
    await desk.order(order, tenders=two_tenders(order))
    await desk.fault(f"voucher-{order}", "refuse")
    case = await desk.request(order, order, kind=kind, lines=WHOLE)
    await desk.stuck(case, "refund_declined")
    with pytest.raises(Conflict, match="the amount lies between 7001"):
        await desk.resolve(case, Action.amend, amount=7_000)

    await desk.resolve(case, Action.amend, amount=amount)
    done = await desk.status(case, CaseStatus.completed)

    assert done.refunded == amount
    assert await _states(desk, case) == {"card:1": (7_001, "succeeded"), "voucher:1": (2_999, "declined"), **slices}
    assert sum(lines.get("sales_returns", 0) for lines in (await desk.booked(case)).values()) == amount
    await desk.check_audit()


# What the buyer hears ----------------------------------------------------------------------------------------------


class Mailbox:
    """A mail server's handler: it keeps what comes, and knows nobody of `unknown`."""

    def __init__(self) -> None:
        self.unknown: set[str] = set()
        self.mails: list[tuple[str, EmailMessage]] = []

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if address in self.unknown:
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, EmailMessage, policy=policy.default)
        self.mails.extend((to, mail) for to in envelope.rcpt_tos)
        return "250 OK"


@asynccontextmanager
async def _mail_desk(tmp_path: Path) -> AsyncIterator[tuple[Desk, Mailbox]]:
    box = Mailbox()
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(box, hostname="mail.test"), "127.0.0.1", 0)
    async with server, _desk(tmp_path, messaging="smtp", smtp_port=server.sockets[0].getsockname()[1]) as desk:
        yield desk, box


async def test_a_refund_is_told_once_by_mail_in_the_language_of_the_buyer(tmp_path: Path) -> None:
    async with _mail_desk(tmp_path) as (desk, box):
        for locale in ("zh", "en"):
            await desk.order(locale, buyer={"buyer_id": "b", "email": f"{locale}@example.com", "locale": locale})
            await desk.request(locale, f"R-{locale}")
        numbers = {loc: (await desk.status(case_id(f"R-{loc}"), CaseStatus.completed)).case_no for loc in ("zh", "en")}

        mails = dict(box.mails)
        assert len(box.mails) == 2
        assert mails["zh@example.com"]["subject"] == "退款已到账：订单 zh"
        assert f"售后单 {numbers['zh']} 的退款 CNY 50.00" in mails["zh@example.com"].get_content()
        assert mails["en@example.com"]["subject"] == "Refunded: order en"
        assert f"CNY 50.00 for case {numbers['en']}" in mails["en@example.com"].get_content()
        await desk.check_audit()


async def test_a_mail_to_an_unknown_recipient_waits_for_a_person_who_corrects_the_address(order: str, tmp_path: Path) -> None:
    async with _mail_desk(tmp_path) as (desk, box):
        box.unknown.add("gone@example.com")
        await desk.order(order, buyer={"buyer_id": "b", "email": "gone@example.com"})
        case = await desk.request(order, order)
        await desk.stuck(case, "message_undeliverable")
        assert box.mails == []

        await desk.resolve(case, Action.amend, recipient="found@example.com")
        await desk.status(case, CaseStatus.completed)

        assert [to for to, _ in box.mails] == ["found@example.com"]
        await desk.check_audit()


async def test_a_message_that_cannot_be_sent_for_a_while_arrives_once(desk: Desk, order: str) -> None:
    await desk.order(order)
    await desk.fault(case_id(order), "message_down", times=2)
    case = await desk.request(order, order)

    await desk.status(case, CaseStatus.completed)

    assert await desk.messages(case) == [("refund_paid", "buyer", 1)]
    await desk.check_audit()
