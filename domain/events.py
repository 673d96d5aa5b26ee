"""What the outside tells us: the `data` of every event type, checked at the edge.

An event is a CloudEvents 1.0 envelope (see `starter`) around one of these models. Amounts are integer minor units of the
order's ISO 4217 currency, quantities are whole units, times carry a zone. Every string and list is bounded, because a
payload over 2 MB would stay in the process engine's retry for ever.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=40)]
Ref = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$", max_length=255)]
Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Text = Annotated[str, StringConstraints(max_length=500, strip_whitespace=True)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
Quantity = Annotated[int, Field(gt=0, le=1_000_000, strict=True)]
Amount = Annotated[int, Field(ge=0, le=10**12, strict=True)]
"""Minor units."""
PositiveAmount = Annotated[int, Field(gt=0, le=10**12, strict=True)]


def _in_utc(at: datetime) -> datetime:
    return at.astimezone(UTC)


def _no_number(at: object) -> object:
    if isinstance(at, int | float) or (isinstance(at, str) and not at[4:5] == "-"):
        raise ValueError("a time is written like 2026-03-02T08:00:00Z")
    return at


Instant = Annotated[AwareDatetime, BeforeValidator(_no_number), AfterValidator(_in_utc)]
"""A time with a zone, kept in UTC."""


class CaseKind(StrEnum):
    refund = "refund"
    return_ = "return"


class Grade(StrEnum):
    """What the warehouse found a returned unit to be."""

    sellable = "sellable"
    damaged = "damaged"
    wrong_item = "wrong_item"


class EventData(BaseModel):
    """The `data` of an event. The edge validates with `extra="forbid"`; histories decode tolerantly, so that a field that
    is new today does not break a workflow of yesterday."""

    model_config = ConfigDict(frozen=True)
    type_name: ClassVar[str]


class Buyer(BaseModel):
    """Whom to tell, and in which language. `buyer_id` is the platform's pseudonym, never a name or a number to call."""

    model_config = ConfigDict(frozen=True)
    buyer_id: Ref
    name: Text = ""
    email: Annotated[str, StringConstraints(max_length=254)] = ""
    phone: Annotated[str, StringConstraints(max_length=32)] = ""
    locale: Literal["zh", "en"] = "zh"


class OrderLine(BaseModel):
    """`amount` is what was paid for all `quantity` units after discounts; `unit_cost` is what one unit is worth in stock."""

    model_config = ConfigDict(frozen=True)
    line_id: Ref
    sku: Ref
    title: Text = ""
    quantity: Quantity
    amount: Amount
    unit_cost: Amount | None = None


class Tender(BaseModel):
    """One payment of the order, known to `provider` under `payment_ref`."""

    model_config = ConfigDict(frozen=True)
    tender_id: Ref
    kind: Literal["card", "wallet", "voucher"]
    provider: Slug
    payment_ref: Ref
    amount: PositiveAmount


class OfOrder(EventData):
    merchant: Slug
    channel: Slug
    order_id: Ref


class OrderPaid(OfOrder):
    type_name = "order.paid"
    currency: Currency
    placed_at: Instant
    buyer: Buyer
    lines: Annotated[list[OrderLine], Field(min_length=1, max_length=2_000)]
    shipping: Amount = 0
    tenders: Annotated[list[Tender], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        due = sum(line.amount for line in self.lines) + self.shipping
        paid = sum(tender.amount for tender in self.tenders)
        if due != paid:
            raise ValueError(f"tenders pay {paid} for lines and shipping of {due}")
        if len({line.line_id for line in self.lines}) < len(self.lines):
            raise ValueError("two lines share a line_id")
        if len({tender.tender_id for tender in self.tenders}) < len(self.tenders):
            raise ValueError("two tenders share a tender_id")
        return self


class OrderShipped(OfOrder):
    type_name = "order.shipped"
    waybill: Ref
    carrier: Slug | None = None
    shipped_at: Instant


class OrderDelivered(OfOrder):
    type_name = "order.delivered"
    delivered_at: Instant


class OfCase(EventData):
    """An event about one case, named by the reference that the platform gave the request."""

    merchant: Slug
    channel: Slug
    reference: Ref

    @property
    def case_id(self) -> str:
        return f"{self.merchant}:{self.channel}:{self.reference}"


class RequestedLine(BaseModel):
    """Units of one order line. `amount` is what the buyer asks for them; without it, what was paid for them."""

    model_config = ConfigDict(frozen=True)
    line_id: Ref | None = None
    sku: Ref | None = None
    quantity: Quantity
    amount: PositiveAmount | None = None


class AftersaleRequested(OfCase):
    """A request. One without `order_id` belongs to no order we can name and goes to the orphan pool."""

    type_name = "aftersale.requested"
    kind: CaseKind
    order_id: Ref | None = None
    currency: Currency
    reason: Code
    note: Text = ""
    lines: Annotated[list[RequestedLine], Field(min_length=1, max_length=500)]
    requested_at: Instant
    deadline: Instant | None = None
    """By when the platform wants the merchant to act; read from the record, never computed (DOMAIN: limits change)."""

    @model_validator(mode="after")
    def _names_its_lines(self) -> Self:
        named = [line.line_id for line in self.lines if line.line_id]
        if self.order_id and len(named) < len(self.lines):
            raise ValueError("a request on an order names the line_id of every line")
        if len(set(named)) < len(named):
            raise ValueError("two lines share a line_id")
        return self


class AftersaleWithdrawn(OfCase):
    type_name = "aftersale.withdrawn"
    withdrawn_at: Instant


class DeadlineChanged(OfCase):
    type_name = "aftersale.deadline_changed"
    deadline: Instant
    changed_at: Instant


class ParcelReturning(OfCase):
    type_name = "parcel.returning"
    waybill: Ref
    carrier: Slug | None = None
    sent_at: Instant


class ReceivedLine(BaseModel):
    model_config = ConfigDict(frozen=True)
    line_id: Ref
    quantity: Quantity
    grade: Grade


class WarehouseReceived(EventData):
    """What the warehouse counted. `receipt_id` is its dedupe id (Qimen's `outBizCode`); a correction is a new receipt
    that replaces the one it `corrects`. `final` says that nothing more will come."""

    type_name = "warehouse.received"
    receipt_id: Ref
    warehouse: Slug
    rma: Key | None = None
    waybill: Ref | None = None
    corrects: Ref | None = None
    final: bool = False
    lines: Annotated[list[ReceivedLine], Field(min_length=1, max_length=500)]
    received_at: Instant


class OfRefund(EventData):
    """A payment provider's report on the refund that we asked for under `refund_key`."""

    provider: Slug
    refund_key: Key
    provider_ref: Ref
    amount: PositiveAmount
    currency: Currency


class RefundSettled(OfRefund):
    type_name = "payment.refund_settled"
    settled_at: Instant


class RefundFailed(OfRefund):
    type_name = "payment.refund_failed"
    code: Code
    message: Text = ""
    failed_at: Instant


EVENT_TYPES: dict[str, type[EventData]] = {
    model.type_name: model
    for model in (
        OrderPaid,
        OrderShipped,
        OrderDelivered,
        AftersaleRequested,
        AftersaleWithdrawn,
        DeadlineChanged,
        ParcelReturning,
        WarehouseReceived,
        RefundSettled,
        RefundFailed,
    )
}
"""Every event type that we take, by its CloudEvents `type`."""
