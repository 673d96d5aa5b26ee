"""A merchant's rules, as data, and the one decision they lead to.

A policy is a YAML file in `policies/`, for a merchant and channel or for all (`"*"`). The decision is taken once, when a
case registers, and stored with the policy's version and the inputs that led to it: it is never made again on replay.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from domain.cases import Model
from domain.entitlement import AbovePaid
from domain.events import CaseKind, Code, Currency, Grade, Slug
from domain.settlement import Disposition, GradeTerms, TenderOrder

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _duration(text: object) -> object:
    if isinstance(text, int | float):
        raise ValueError("a duration is written like 30s, 15m, 12h or 7d")
    if isinstance(text, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", text.strip())):
        try:
            return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
        except OverflowError as error:
            raise ValueError("a duration is at most 3650d") from error
    if isinstance(text, str) and not text.startswith("P"):
        raise ValueError("a duration is written like 30s, 15m, 12h or 7d")
    return text


Duration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0), le=timedelta(days=3650))]
"""`7d`, `12h`, `15m`, `30s`."""


class Rules(Model):
    """A part of a policy. `domain.policy_file` refuses unknown names, because a misspelt rule would silently not apply;
    histories, which carry terms, decode tolerantly."""


class AutoApproval(Rules):
    """Requests approved without a person. No `reasons` means any; an amount in a currency that `up_to` does not name is
    never approved alone; no `up_to` at all means any amount."""

    kinds: tuple[CaseKind, ...]
    reasons: tuple[Code, ...] = ()
    up_to: dict[Currency, int] | None = None

    def covers(self, asked: "Inputs") -> bool:
        limit = asked.approved if self.up_to is None else self.up_to.get(asked.currency, -1)
        reason_fits = not self.reasons or asked.reason in self.reasons
        return asked.kind in self.kinds and reason_fits and asked.approved <= limit


class AbuseLimit(Rules):
    """More than this by one buyer within the window goes to review."""

    within: Duration
    requests: int
    amount: dict[Currency, int] = {}


class ReviewTerms(Rules):
    """A person has `within` to decide, if the platform sets no deadline of its own; `alarm_before` that, ops are told."""

    within: Duration
    alarm_before: Duration
    on_expiry: Literal["approve", "attention"]


class ParcelTerms(Rules):
    """The buyer has `within` to send the goods, and is reminded `remind_after` the start."""

    within: Duration
    remind_after: Duration


class ReceiptTerms(Rules):
    """The warehouse has `within` to count what was sent; ops are told `chase_after` the start. `on_short`: settle on what
    has come, or ask a person."""

    within: Duration
    chase_after: Duration
    on_short: Literal["settle", "attention"]


class PaymentTerms(Rules):
    """After a refund is submitted we look it up after `poll_after`, then at doubling intervals up to `poll_at_most`. An
    unknown outcome goes to a person after `unknown_for`, one that stays pending after `confirm_within`."""

    poll_after: Duration
    poll_at_most: Duration
    unknown_for: Duration
    confirm_within: Duration
    try_for: Duration
    """How long an outside system that is down, or answers 'later', is tried before a person is asked."""


class Fee(Rules):
    """Kept back on a return (minor units), unless the reason is one of `free_for`."""

    amount: dict[Currency, int] = {}
    free_for: tuple[Code, ...] = ()


class GradeRule(Rules):
    pay_percent: Annotated[int, Field(ge=0, le=100)]
    disposition: Literal[Disposition.restock, Disposition.refurbish, Disposition.scrap, Disposition.return_to_vendor]


class Template(StrEnum):
    """What people can be told; each has a text in Chinese and in English."""

    refund_paid = "refund_paid"
    nothing_to_refund = "nothing_to_refund"
    declined = "declined"
    withdrawn = "withdrawn"
    expired = "expired"
    return_address = "return_address"
    parcel_reminder = "parcel_reminder"
    deadline_near = "deadline_near"
    goods_chase = "goods_chase"
    attention = "attention"


class Policy(Rules):
    """One merchant's rules; see `policies/default.yaml` for an annotated example."""

    version: Annotated[str, Field(min_length=1, max_length=40)]
    merchant: Slug | Literal["*"] = "*"
    channel: Slug | Literal["*"] = "*"
    amount_above_paid: AbovePaid = "reject"
    return_window: Duration | None = None
    outside_window: Literal["decline", "review"] = "review"
    nothing_left: Literal["decline", "review"] = "decline"
    auto_approve: tuple[AutoApproval, ...] = ()
    abuse: AbuseLimit | None = None
    review: ReviewTerms
    parcel: ParcelTerms
    receipt: ReceiptTerms
    payment: PaymentTerms
    tenders: TenderOrder
    grades: dict[Grade, GradeRule]
    return_fee: Fee = Fee()
    cost_percent: Annotated[int, Field(ge=0, le=100)] = 60
    """What a unit is worth in stock, in per cent of its price, where the order names no unit cost."""

    tell: dict[Template, tuple[Literal["buyer", "merchant"], ...]]
    """Who is told what: template → recipients."""
    merchant_address: Annotated[str, Field(max_length=254)] = ""
    merchant_locale: Literal["zh", "en"] = "zh"

    @field_validator("grades")
    @classmethod
    def _say_all(cls, grades: dict[Grade, GradeRule]) -> dict[Grade, GradeRule]:
        if absent := [grade.value for grade in Grade if grade not in grades]:
            raise ValueError(f"say what is worth a unit that is {', '.join(absent)}")
        return grades


class Verdict(StrEnum):
    approve = "approve"
    review = "review"
    decline = "decline"


class Inputs(Model):
    """All that a decision looked at; amounts in minor units."""

    kind: CaseKind
    reason: str
    currency: str
    requested: int
    approved: int
    requested_at: datetime
    delivered_at: datetime | None
    nothing_left: bool
    buyer_requests: int
    buyer_amount: int


class Decision(Model):
    """What was decided, by which rule of which version of which policy, from which inputs. `by` is a person's name where
    a person decided."""

    verdict: Verdict
    rule: str
    policy: str
    version: str
    inputs: Inputs
    by: str = "policy"
    reason: str = ""


class Terms(Model):
    """What a running case needs of its policy, fixed when it registers."""

    review: ReviewTerms
    parcel: ParcelTerms
    receipt: ReceiptTerms
    payment: PaymentTerms
    tenders: TenderOrder
    grades: dict[Grade, GradeTerms]
    fee: int
    cost_percent: int
    tell: dict[str, tuple[str, ...]]


def terms(policy: Policy, kind: CaseKind, reason: str, currency: str) -> Terms:
    """The terms for one case."""
    free = kind is not CaseKind.return_ or reason in policy.return_fee.free_for
    return Terms(
        review=policy.review,
        parcel=policy.parcel,
        receipt=policy.receipt,
        payment=policy.payment,
        tenders=policy.tenders,
        grades={grade: GradeTerms(**rule.model_dump()) for grade, rule in policy.grades.items()},
        fee=0 if free else policy.return_fee.amount.get(currency, 0),
        cost_percent=policy.cost_percent,
        tell={template.value: tuple(recipients) for template, recipients in policy.tell.items()},
    )


def decide(policy: Policy, name: str, asked: Inputs) -> Decision:
    """The verdict of `policy` (called `name`) on a request. The first rule that applies decides; without one, a person
    does. The return window counts from the day after delivery, as the law counts the seven days."""
    verdict, rule = _verdict(policy, asked)
    return Decision(verdict=verdict, rule=rule, policy=name, version=policy.version, inputs=asked)


def _verdict(policy: Policy, asked: Inputs) -> tuple[Verdict, str]:
    if asked.nothing_left:
        return Verdict(policy.nothing_left), "nothing_left"
    if policy.return_window and asked.delivered_at:
        closes = asked.delivered_at + timedelta(days=1) + policy.return_window
        if asked.requested_at > closes:
            return Verdict(policy.outside_window), "outside_window"
    if policy.abuse and asked.buyer_requests > policy.abuse.requests:
        return Verdict.review, "too_many_requests"
    if policy.abuse and asked.buyer_amount > policy.abuse.amount.get(asked.currency, asked.buyer_amount):
        return Verdict.review, "too_much_claimed"
    for index, rule in enumerate(policy.auto_approve):
        if rule.covers(asked):
            return Verdict.approve, f"auto_approve.{index}"
    return Verdict.review, "no_rule"


class Policies:
    """All policies, by merchant and channel; the most specific one applies."""

    def __init__(self, by_name: Mapping[str, Policy]) -> None:
        self._named = {(policy.merchant, policy.channel): (name, policy) for name, policy in by_name.items()}

    def of(self, merchant: str, channel: str) -> tuple[str, Policy]:
        """(name, policy) for a merchant's channel."""
        for key in ((merchant, channel), (merchant, "*"), ("*", channel), ("*", "*")):
            if key in self._named:
                return self._named[key]
        raise LookupError(f"no policy for {merchant} on {channel}")

    def covers_everyone(self) -> bool:
        return ("*", "*") in self._named
