"""The tables, typed. Workflow state is the truth while a case is open; these are its records and its projection."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import BigInteger, Dialect, ForeignKey, Index, Integer, MetaData, String, Text, UniqueConstraint
from sqlalchemy import DateTime as SqlDateTime
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from domain.cases import Attention, CaseRequest, CaseStatus, Counted, Tracks, case_number
from domain.effects import EffectKind, EffectState
from domain.events import Buyer, CaseKind
from domain.ledger import Account
from domain.policy import Decision

Number = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite gives row ids to INTEGER primary keys only."""


class UtcDateTime(TypeDecorator[datetime]):
    """A time with zone, stored and answered in UTC (SQLite keeps no zone)."""

    impl = SqlDateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


class Json(TypeDecorator[Any]):
    """A pydantic type as JSON text."""

    impl = Text
    cache_ok = True

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.shape = shape
        self.adapter: TypeAdapter[Any] = TypeAdapter(shape)

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else self.adapter.dump_json(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else self.adapter.validate_json(value)


class Enum(TypeDecorator[Any]):
    """A StrEnum as its value, in a plain string column: a new member needs no migration."""

    impl = String(32)
    cache_ok = True

    def __init__(self, of: type[StrEnum]) -> None:
        super().__init__()
        self.of = of

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        return None if value is None else self.of(value)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, int: BigInteger, Buyer: Json(Buyer)}


class Order(Base):
    """The snapshot of an order as its events told it. `key` is `merchant:channel:order`; `sha` stands for the event that
    told it first."""

    __tablename__ = "orders"
    key: Mapped[str] = mapped_column(String(160), primary_key=True)
    merchant: Mapped[str] = mapped_column(String(40))
    channel: Mapped[str] = mapped_column(String(40))
    order_id: Mapped[str] = mapped_column(String(64))
    currency: Mapped[str] = mapped_column(String(3))
    placed_at: Mapped[datetime]
    buyer_id: Mapped[str] = mapped_column(String(64))
    buyer: Mapped[Buyer]
    shipping: Mapped[int]
    sha: Mapped[str] = mapped_column(String(64))
    waybill: Mapped[str | None] = mapped_column(String(64))
    shipped_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]


class OrderLine(Base):
    __tablename__ = "order_lines"
    order_key: Mapped[str] = mapped_column(ForeignKey("orders.key"), primary_key=True)
    line_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    sku: Mapped[str] = mapped_column(String(64))
    title: Mapped[str] = mapped_column(Text)
    quantity: Mapped[int]
    amount: Mapped[int]
    unit_cost: Mapped[int | None]


class Tender(Base):
    """One payment of an order; `amount` is what was captured, in minor units."""

    __tablename__ = "tenders"
    order_key: Mapped[str] = mapped_column(ForeignKey("orders.key"), primary_key=True)
    tender_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    provider: Mapped[str] = mapped_column(String(40))
    payment_ref: Mapped[str] = mapped_column(String(64), index=True)
    amount: Mapped[int]


class Case(Base):
    """One customer's problem with one order. `number` makes the case_no; `request_sha` tells a repeat of the same request
    from another request under the same reference."""

    __tablename__ = "cases"
    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    case_id: Mapped[str] = mapped_column(String(160), unique=True)
    kind: Mapped[CaseKind] = mapped_column(Enum(CaseKind))
    merchant: Mapped[str] = mapped_column(String(40))
    channel: Mapped[str] = mapped_column(String(40))
    order_key: Mapped[str] = mapped_column(ForeignKey("orders.key"), index=True)
    buyer_id: Mapped[str] = mapped_column(String(64), index=True)
    currency: Mapped[str] = mapped_column(String(3))
    request: Mapped[CaseRequest] = mapped_column(Json(CaseRequest))
    request_sha: Mapped[str] = mapped_column(String(64))
    note: Mapped[str] = mapped_column(Text)
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    decision: Mapped[Decision | None] = mapped_column(Json(Decision))
    revision: Mapped[int] = mapped_column(default=0)
    status: Mapped[CaseStatus] = mapped_column(Enum(CaseStatus), index=True)
    tracks: Mapped[Tracks] = mapped_column(Json(Tracks))
    attention: Mapped[Attention | None] = mapped_column(Json(Attention))
    attention_cause: Mapped[str | None] = mapped_column(String(40), index=True)
    deadline: Mapped[datetime | None]
    requested: Mapped[int]
    approved: Mapped[int]
    refunded: Mapped[int]

    @property
    def case_no(self) -> str:
        return case_number(self.opened_at.year, self.number)


class ClaimState(StrEnum):
    reserved = "reserved"
    taken = "taken"
    released = "released"


class ClaimRow(Base):
    """What a case reserved or took of an order line. Released claims give their units and money back."""

    __tablename__ = "claims"
    case_id: Mapped[str] = mapped_column(String(160), primary_key=True)
    line_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    order_key: Mapped[str] = mapped_column(ForeignKey("orders.key"), index=True)
    quantity: Mapped[int]
    amount: Mapped[int]
    state: Mapped[ClaimState] = mapped_column(Enum(ClaimState))


class NoteRow(Base):
    """The timeline of a case. Rows whose `actor` is a person are the audit trail of what people did."""

    __tablename__ = "timeline"
    case_id: Mapped[str] = mapped_column(String(160), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    step: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(80))


class EffectRow(Base):
    """The effect log: one row a key, committed before the call that it stands for."""

    __tablename__ = "effects"
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    case_id: Mapped[str] = mapped_column(String(160), index=True)
    kind: Mapped[EffectKind] = mapped_column(Enum(EffectKind))
    content: Mapped[str] = mapped_column(Text)
    state: Mapped[EffectState] = mapped_column(Enum(EffectState), index=True)
    provider: Mapped[str] = mapped_column(String(40))
    reference: Mapped[str] = mapped_column(String(128))
    cause: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(Text)
    by_hand: Mapped[bool]
    calls: Mapped[int]
    created_at: Mapped[datetime]
    called_at: Mapped[datetime | None]
    concluded_at: Mapped[datetime | None]
    # refunds only
    order_key: Mapped[str | None] = mapped_column(String(160), index=True)
    tender_id: Mapped[str | None] = mapped_column(String(64))
    round: Mapped[int | None]
    amount: Mapped[int | None]
    currency: Mapped[str | None] = mapped_column(String(3))


class ReceiptRow(Base):
    """What the warehouse counted for a case; a corrected receipt stays, with `corrected_by` naming its successor."""

    __tablename__ = "receipts"
    case_id: Mapped[str] = mapped_column(String(160), primary_key=True)
    receipt_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    corrects: Mapped[str | None] = mapped_column(String(64))
    waybill: Mapped[str | None] = mapped_column(String(64))
    lines: Mapped[list[Counted]] = mapped_column(Json(list[Counted]))
    received_at: Mapped[datetime]


class ParcelRow(Base):
    """A parcel on its way back, announced for a case; one parcel may carry the goods of several."""

    __tablename__ = "parcels"
    waybill: Mapped[str] = mapped_column(String(64), primary_key=True)
    case_id: Mapped[str] = mapped_column(String(160), primary_key=True)
    sent_at: Mapped[datetime]


class AccountRow(Base):
    __tablename__ = "accounts"
    code: Mapped[Account] = mapped_column(Enum(Account), primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    en: Mapped[str] = mapped_column(String(80))
    zh: Mapped[str] = mapped_column(String(80))


class EntryRow(Base):
    """A journal entry; its key is unique, so that posting twice is posting once."""

    __tablename__ = "entries"
    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(String(255), unique=True)
    case_id: Mapped[str] = mapped_column(String(160), index=True)
    at: Mapped[datetime]
    text: Mapped[str] = mapped_column(String(200))
    currency: Mapped[str] = mapped_column(String(3))


class EntryLineRow(Base):
    __tablename__ = "entry_lines"
    entry_key: Mapped[str] = mapped_column(ForeignKey("entries.key"), primary_key=True)
    account: Mapped[Account] = mapped_column(Enum(Account), ForeignKey("accounts.code"), primary_key=True)
    amount: Mapped[int]


class InboxState(StrEnum):
    accepted = "accepted"
    waiting = "waiting"
    processed = "processed"
    orphan = "orphan"
    rejected = "rejected"


class InboxRow(Base):
    """Every event that came in, unique by (source, event_id); a rejected one has no event_id of its own, so that its
    sender can correct it under the same id."""

    __tablename__ = "inbox"
    __table_args__ = (UniqueConstraint("source", "event_id"), Index("ix_inbox_state_id", "state", "id"))
    id: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    source: Mapped[str] = mapped_column(String(200))
    event_id: Mapped[str | None] = mapped_column(String(200))
    type: Mapped[str] = mapped_column(String(80))
    case_id: Mapped[str | None] = mapped_column(String(160), index=True)
    awaits: Mapped[str | None] = mapped_column(String(200), index=True)
    state: Mapped[InboxState] = mapped_column(Enum(InboxState))
    reason: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)
    sha: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]
