"""A step of a case's history, and the words in which it is told: what each activity, fact and person's word means to the
business, and what is worth saying of its content."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from domain import money
from domain.cases import CaseRequest, Model
from domain.effects import EffectState, Outcome
from domain.events import (
    AftersaleWithdrawn,
    DeadlineChanged,
    EventData,
    ParcelReturning,
    RefundFailed,
    RefundSettled,
    WarehouseReceived,
)
from domain.policy import Decision
from domain.resolution import Judgement, Resolution


class StepState(StrEnum):
    """`running` and `waiting` steps are not over yet."""

    done = "done"
    failed = "failed"
    running = "running"
    waiting = "waiting"


class Step(Model):
    """One thing that happened to a case. `step` is a code: an activity, a fact, a person's update, `wait`, `case.…` or
    `worker.…`; `what` says it in words and `detail` what came of it. `error` is the last thing that went wrong, also where
    a later attempt succeeded. `until` is the end of a wait, or when a running step is tried again."""

    at: datetime
    step: str
    what: str
    state: StepState = StepState.done
    attempts: int = 1
    duration_seconds: float | None = None
    detail: str = ""
    error: str = ""
    actor: str = "system"
    until: datetime | None = None


ACTIVITIES = {
    "register": "registered and decided by policy",
    "record_decision": "person's decision put into the records",
    "settle_step_by_hand": "step seen to by hand, put into the records",
    "store": "state put into the records",
    "expect_return": "return announced to the warehouse",
    "cancel_return": "return called off at the warehouse",
    "stop_shipment": "warehouse asked to stop the shipment",
    "record_receipt": "receipt recorded, goods booked at cost",
    "refund": "refund sent to the payment provider",
    "look_up_refund": "payment provider asked about the refund",
    "refund_standing": "refund read back from the effect log",
    "settle_by_hand": "refund paid by hand, booked",
    "take_grant_back": "what was granted and not paid taken back",
    "tell": "message sent",
}
FACTS = {
    "aftersale.withdrawn": "the buyer took the request back",
    "aftersale.deadline_changed": "the platform moved the deadline",
    "parcel.returning": "the buyer sent the goods",
    "warehouse.received": "the warehouse counted goods",
    "payment.refund_settled": "the provider confirmed the refund",
    "payment.refund_failed": "the provider failed the refund",
}
PEOPLE: dict[str, type[Judgement | Resolution]] = {"decide": Judgement, "resolve": Resolution}
"""What a person says by each update."""


class Decided(Model):
    """As much of a registration as its story needs; so the next two of a message and of a refund."""

    decision: Decision


class Told(Model):
    template: str
    recipients: tuple[str, ...]
    about: str = ""


class RefundPart(Model):
    tender_id: str
    amount: int
    state: EffectState
    reference: str = ""
    cause: str = ""
    detail: str = ""


RESULTS: dict[str, Any] = {
    "register": Decided,
    "expect_return": Outcome,
    "cancel_return": Outcome,
    "stop_shipment": Outcome,
    **dict.fromkeys(("refund", "look_up_refund", "refund_standing", "settle_by_hand"), list[RefundPart]),
}
"""What the result of an activity is read as, where it says anything."""


def request(asked: CaseRequest) -> str:
    units, amount = sum(line.quantity for line in asked.lines), sum(line.amount for line in asked.lines)
    return f"order {asked.order_id}: {units} units, {money.show(amount, asked.currency)}, {asked.reason}"


def told(message: Told) -> str:
    name = f"{message.template} ({message.about})" if message.about else message.template
    return f"{name} to {', '.join(message.recipients)}"


def result(value: Decided | Outcome | list[RefundPart], currency: str) -> str:
    if isinstance(value, Decided):
        decision = value.decision
        return f"{decision.verdict} by {decision.policy} {decision.version}: {decision.rule}"
    if isinstance(value, Outcome):
        return said(value.state, value.cause, value.detail or value.reference)
    return "; ".join(
        f"{money.show(part.amount, currency)} over tender {part.tender_id}: "
        + said(part.state, part.cause, part.detail, part.reference)
        for part in value
    )


def fact(event: EventData) -> str:
    match event:
        case DeadlineChanged():
            return f"{event.deadline:%Y-%m-%d %H:%M:%S} UTC"
        case ParcelReturning():
            return f"waybill {event.waybill}"
        case WarehouseReceived():
            counted = ", ".join(f"{line.quantity} × {line.line_id} {line.grade}" for line in event.lines)
            return f"receipt {event.receipt_id}: {counted}" + (f"; corrects {event.corrects}" if event.corrects else "")
        case RefundSettled():
            return said(money.show(event.amount, event.currency), event.provider_ref)
        case RefundFailed():
            return said(money.show(event.amount, event.currency), event.provider_ref, event.code, event.message)
        case AftersaleWithdrawn():
            return f"at {event.withdrawn_at:%Y-%m-%d %H:%M:%S} UTC"
    return ""


def person(word: Judgement | Resolution) -> tuple[str, str]:
    """(what a person did, why and with what). A corrected address is personal: only that there is one is told."""
    if isinstance(word, Judgement):
        return f"a person decided: {word.verdict}", word.reason
    changes = {
        "voucher": word.voucher,
        "amount": word.amount,
        "tender": word.tender_id,
        "recipient": "another address" if word.recipient else "",
        "waive": "the step that was stuck" if word.waive else "",
    }
    named = [f"{name} {value}" for name, value in changes.items() if value not in ("", None)]
    return f"a person said: {word.action}", said(word.reason, *(f"({change})" for change in named))


def said(*parts: str) -> str:
    return " ".join(part for part in parts if part)
