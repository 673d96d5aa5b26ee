"""The first rule that applies decides, and what no rule covers goes to a person."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from domain.events import CaseKind, Grade
from domain.policy import Decision, Duration, Inputs, Policies, Policy, Verdict, decide, terms
from domain.settlement import Disposition, GradeTerms, TenderOrder

DELIVERED = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
LAST_MOMENT = DELIVERED + timedelta(days=8)
"""Seven days, counted from the day after delivery."""
BASE: dict[str, Any] = {
    "version": "v1",
    "return_window": "7d",
    "auto_approve": [
        {"kinds": ["refund"], "up_to": {"CNY": 200, "GBP": 20}},
        {"kinds": ["return"], "reasons": ["quality", "damaged"], "up_to": {"CNY": 500}},
    ],
    "abuse": {"within": "30d", "requests": 3, "amount": {"CNY": 1_000}},
    "review": {"within": "24h", "alarm_before": "6h", "on_expiry": "attention"},
    "parcel": {"within": "7d", "remind_after": "4d"},
    "receipt": {"within": "10d", "chase_after": "5d", "on_short": "settle"},
    "payment": {"poll_after": "1m", "poll_at_most": "12h", "unknown_for": "30m", "confirm_within": "15d", "try_for": "1h"},
    "tenders": "voucher_first",
    "grades": {
        "sellable": {"pay_percent": 100, "disposition": "restock"},
        "damaged": {"pay_percent": 30, "disposition": "scrap"},
        "wrong_item": {"pay_percent": 0, "disposition": "return_to_vendor"},
    },
    "return_fee": {"amount": {"CNY": 12}, "free_for": ["quality"]},
    "cost_percent": 55,
    "tell": {"refund_paid": ["buyer"], "attention": ["merchant", "buyer"]},
}


def policy(**changes: object) -> Policy:
    return Policy.model_validate(BASE | changes)


def inputs(**changes: object) -> Inputs:
    base: dict[str, object] = {
        "kind": "refund",
        "reason": "quality",
        "currency": "CNY",
        "requested": 150,
        "approved": 150,
        "requested_at": DELIVERED,
        "delivered_at": DELIVERED,
        "nothing_left": False,
        "buyer_requests": 1,
        "buyer_amount": 150,
    }
    return Inputs.model_validate(base | changes)


def outcome(asked: Inputs, **changes: object) -> tuple[str, str]:
    decision = decide(policy(**changes), "default", asked)
    return decision.verdict.value, decision.rule


# Durations -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("30s", timedelta(seconds=30)),
        ("15m", timedelta(minutes=15)),
        ("12h", timedelta(hours=12)),
        ("1.5h", timedelta(minutes=90)),
        (" 7 d ", timedelta(days=7)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, duration: timedelta) -> None:
    assert TypeAdapter(Duration).validate_python(text) == duration


@pytest.mark.parametrize("text", ["7", "7 days", "d", "-1d", "0d", "1d12h", "1w", "", "soon", None])
def test_what_is_no_positive_duration_is_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(text)


@pytest.mark.parametrize("number", [7, 7.0, True])
def test_a_number_without_a_unit_is_refused_and_not_taken_for_seconds(number: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(number)


@pytest.mark.parametrize("text", ["99999999999d", "999999999999999999999999h"])
def test_a_duration_longer_than_time_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(text)


@given(amount=st.integers(1, 300), unit=st.sampled_from(["s", "m", "h", "d"]))
def test_a_duration_read_once_is_read_again_from_a_history(amount: int, unit: str) -> None:
    adapter = TypeAdapter[timedelta](Duration)
    read = adapter.validate_python(f"{amount}{unit}")
    assert adapter.validate_json(adapter.dump_json(read)) == read


# The decision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "verdict", "rule"),
    [
        ({"approved": 200}, "approve", "auto_approve.0"),
        ({"approved": 201}, "review", "no_rule"),
        ({"currency": "GBP", "approved": 20}, "approve", "auto_approve.0"),
        ({"currency": "USD", "approved": 0}, "review", "no_rule"),
        ({"kind": "return", "approved": 500}, "approve", "auto_approve.1"),
        ({"kind": "return", "approved": 10, "reason": "no_reason"}, "review", "no_rule"),
        ({"kind": "return", "approved": 20, "currency": "GBP"}, "review", "no_rule"),
        ({"buyer_requests": 3}, "approve", "auto_approve.0"),
        ({"buyer_requests": 4}, "review", "too_many_requests"),
        ({"buyer_amount": 1_000}, "approve", "auto_approve.0"),
        ({"buyer_amount": 1_001}, "review", "too_much_claimed"),
        ({"buyer_amount": 10**9, "currency": "GBP", "approved": 20}, "approve", "auto_approve.0"),
        ({"requested_at": LAST_MOMENT}, "approve", "auto_approve.0"),
        ({"requested_at": LAST_MOMENT + timedelta(seconds=1)}, "review", "outside_window"),
        ({"requested_at": LAST_MOMENT + timedelta(days=99), "delivered_at": None}, "approve", "auto_approve.0"),
        ({"nothing_left": True}, "decline", "nothing_left"),
    ],
)
def test_the_rule_that_decides(asked: dict[str, object], verdict: str, rule: str) -> None:
    assert outcome(inputs(**asked)) == (verdict, rule)


def test_rules_apply_in_order_so_that_only_the_first_is_named() -> None:
    late = {"requested_at": LAST_MOMENT + timedelta(days=1)}
    assert outcome(inputs(nothing_left=True, buyer_requests=9, **late)) == ("decline", "nothing_left")
    assert outcome(inputs(buyer_requests=9, buyer_amount=9_999, **late)) == ("review", "outside_window")
    assert outcome(inputs(buyer_requests=9, buyer_amount=9_999)) == ("review", "too_many_requests")


def test_the_merchant_says_what_becomes_of_late_requests_and_of_taken_units() -> None:
    late = inputs(requested_at=LAST_MOMENT + timedelta(days=1))
    assert outcome(late, outside_window="decline") == ("decline", "outside_window")
    assert outcome(late, return_window=None) == ("approve", "auto_approve.0")
    assert outcome(inputs(nothing_left=True), nothing_left="review") == ("review", "nothing_left")


def test_a_rule_without_limits_covers_any_amount_and_reason_and_no_rules_cover_nothing() -> None:
    dear = inputs(approved=10**12, currency="USD", reason="whim")
    assert outcome(dear, auto_approve=[{"kinds": ["refund"]}]) == ("approve", "auto_approve.0")
    assert outcome(dear, auto_approve=[{"kinds": ["refund"], "up_to": {}}]) == ("review", "no_rule")
    assert outcome(dear, auto_approve=[{"kinds": ["return"]}]) == ("review", "no_rule")
    assert outcome(inputs(), auto_approve=[]) == ("review", "no_rule")


def test_without_an_abuse_limit_a_frequent_buyer_is_like_any_other() -> None:
    assert outcome(inputs(buyer_requests=99, buyer_amount=10**9), abuse=None) == ("approve", "auto_approve.0")


@given(
    kind=st.sampled_from(CaseKind),
    reason=st.sampled_from(["quality", "damaged", "whim"]),
    currency=st.sampled_from(["CNY", "GBP", "USD"]),
    approved=st.integers(0, 1_000),
    late=st.integers(0, 20),
    nothing_left=st.booleans(),
    requests=st.integers(1, 6),
    amount=st.integers(0, 2_000),
)
def test_nothing_is_approved_without_a_person_that_the_rules_do_not_cover(
    kind: CaseKind,
    reason: str,
    currency: str,
    approved: int,
    late: int,
    nothing_left: bool,
    requests: int,
    amount: int,
) -> None:
    limits = {
        CaseKind.refund: {"CNY": 200, "GBP": 20},
        CaseKind.return_: {} if reason == "whim" else {"CNY": 500},
    }
    asked = inputs(
        kind=kind,
        reason=reason,
        currency=currency,
        approved=approved,
        requested_at=DELIVERED + timedelta(days=late),
        nothing_left=nothing_left,
        buyer_requests=requests,
        buyer_amount=amount,
    )
    covered = approved <= limits[kind].get(currency, -1)
    harmless = late <= 8 and not nothing_left and requests <= 3 and (currency != "CNY" or amount <= 1_000)
    assert (decide(policy(), "default", asked).verdict is Verdict.approve) == (covered and harmless)


def test_a_decision_keeps_the_policy_its_version_and_the_inputs() -> None:
    asked = inputs()
    decision = decide(policy(version="2026-03"), "lanhua.yaml", asked)
    assert (decision.policy, decision.version, decision.inputs, decision.by) == ("lanhua.yaml", "2026-03", asked, "policy")
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


# Terms ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "reason", "currency", "fee"),
    [
        (CaseKind.return_, "no_reason", "CNY", 12),
        (CaseKind.return_, "quality", "CNY", 0),
        (CaseKind.return_, "no_reason", "GBP", 0),
        (CaseKind.refund, "no_reason", "CNY", 0),
    ],
)
def test_a_fee_is_kept_on_returns_only_and_not_for_our_own_faults(kind: CaseKind, reason: str, currency: str, fee: int) -> None:
    assert terms(policy(), kind, reason, currency).fee == fee


def test_a_case_gets_all_terms_of_its_policy() -> None:
    rules = policy()
    fixed = terms(rules, CaseKind.return_, "quality", "CNY")
    assert (fixed.review, fixed.parcel, fixed.receipt, fixed.payment) == (
        rules.review,
        rules.parcel,
        rules.receipt,
        rules.payment,
    )
    assert (fixed.tenders, fixed.cost_percent) == (TenderOrder.voucher_first, 55)
    assert fixed.grades[Grade.damaged] == GradeTerms(pay_percent=30, disposition=Disposition.scrap)
    assert set(fixed.grades) == set(Grade)
    assert fixed.tell == {"refund_paid": ("buyer",), "attention": ("merchant", "buyer")}


# Whose policy --------------------------------------------------------------------------------------------------------


def test_the_most_specific_policy_applies() -> None:
    owners = [("*", "*"), ("*", "tmall"), ("lanhua", "*"), ("lanhua", "tmall")]
    named = Policies({f"{m}/{c}": policy(merchant=m, channel=c) for m, c in owners})
    asked = [("lanhua", "tmall"), ("lanhua", "jd"), ("other", "tmall"), ("other", "jd")]
    assert [named.of(*one)[0] for one in asked] == ["lanhua/tmall", "lanhua/*", "*/tmall", "*/*"]
    assert named.of("lanhua", "jd")[1].merchant == "lanhua"
    assert named.covers_everyone()


def test_a_merchants_own_policy_goes_before_that_of_the_channel() -> None:
    named = Policies({"own": policy(merchant="lanhua"), "channel": policy(channel="tmall")})
    assert (named.of("lanhua", "tmall")[0], named.of("other", "tmall")[0]) == ("own", "channel")


def test_without_a_policy_for_everyone_some_have_none() -> None:
    named = Policies({"a": policy(merchant="lanhua")})
    assert not named.covers_everyone()
    with pytest.raises(LookupError, match="no policy for other on jd"):
        named.of("other", "jd")
