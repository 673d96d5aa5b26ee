"""UCI Online Retail (real invoices of a UK shop, CSV) told as events: an invoice is an order, a credit note requests.

The figures of a real shop can be counted independently of this system, so replaying its history shows whether money and
goods come out right. A credit note does not name the order it credits: its units are matched against the customer's
earlier sale lines of the same stock code, oldest first (`InvoiceDate`, then file order), as long as units are left.

- A line counts if it is a product (the stock code begins with five digits) and names a customer.
- An invoice worth nothing cannot be an order, because an order is paid by at least one tender above zero: it yields no
  order events. Its units still take part in the matching, so a credit on them names an order that never comes.
- A credit note and a sale invoice make one return request; pieces of it on the same sale line are one requested line.
  Units without an earlier sale make one request for each credit line, without an order.

Matching needs the past, so a customer's whole history goes into one call. A month on its own is told too, but its
credits on sales of the months before it then belong to no order, under other references. The lines that count are held
in memory (some 600 bytes each); the events are made one by one.
"""

import csv
import gzip
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from sys import intern
from typing import Annotated, TextIO

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NaiveDatetime, StringConstraints, ValidationError

from domain.errors import Rejected
from domain.events import (
    AftersaleRequested,
    Buyer,
    CaseKind,
    EventData,
    Instant,
    Key,
    OrderDelivered,
    OrderLine,
    OrderPaid,
    OrderShipped,
    RequestedLine,
    Tender,
    Text,
)

MERCHANT, CHANNEL, CURRENCY, SOURCE = "online-retail", "uk", "GBP", "/online-retail"
COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")
_DEAREST = 10_000
"""Pounds a unit of a product; with a million units, an order line stays within what an event may carry."""


class Envelope(BaseModel):
    """An event with its CloudEvents 1.0 attributes; `id` is unique within `source`."""

    model_config = ConfigDict(frozen=True)
    id: Key
    source: str
    time: Instant
    data: EventData

    @property
    def type(self) -> str:
        return self.data.type_name

    def as_cloudevent(self) -> dict[str, object]:
        """The event in JSON's types, as the intake takes it; what is not known is left out."""
        return {
            "specversion": "1.0",
            "type": self.type,
            "source": self.source,
            "id": self.id,
            "time": self.time.isoformat(),
            "datacontenttype": "application/json",
            "data": self.data.model_dump(mode="json", exclude_none=True),
        }


class _Row(BaseModel):
    """One row of the file as it should be. Customers are written as floats (`17850.0`)."""

    invoice: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{1,20}$")] = Field(alias="InvoiceNo")
    code: str = Field(alias="StockCode")
    title: Text = Field(alias="Description")
    quantity: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = Field(alias="Quantity")
    at: NaiveDatetime = Field(alias="InvoiceDate")
    price: Decimal = Field(alias="UnitPrice")
    customer: Annotated[
        str,
        BeforeValidator(lambda written: written and written.removesuffix(".0")),
        StringConstraints(pattern=r"^([A-Za-z0-9]{1,40})?$"),
    ] = Field(alias="CustomerID")


@dataclass(slots=True, eq=False)
class _Line:
    """A sale or credit line that counts. `units` are positive in both, `price` is pounds a unit; `left` are the units
    of a sale that no credit has taken yet; `line_id` is the line's place on its invoice."""

    invoice: str
    code: str
    title: str
    customer: str
    at: datetime
    units: int
    price: Decimal
    left: int
    line_id: str = ""

    @property
    def is_credit(self) -> bool:
        return self.invoice.startswith("C")

    @property
    def sku(self) -> str:
        return re.sub(r"[^A-Za-z0-9._-]", "-", self.code)[:64]

    def pence(self, units: int) -> int:
        """What `units` of the line are worth, rounded half up."""
        return int((100 * units * self.price).quantize(Decimal(1), ROUND_HALF_UP))

    def sold(self) -> OrderLine:
        amount = self.pence(self.units)
        return OrderLine(line_id=self.line_id, sku=self.sku, title=self.title, quantity=self.units, amount=amount)


@dataclass(frozen=True)
class _Piece:
    """Units of a credit line, on the sale line that they were matched with or on none."""

    credit: _Line
    sale: _Line | None
    units: int

    @property
    def amount(self) -> int:
        return self.credit.pence(self.units)


def events(paths: Sequence[Path]) -> Iterator[Envelope]:
    """The events of these files (CSV, or gzip by a name ending in `.gz`) in the order of `InvoiceDate`; the files are
    given in order of time. The same files give the same events. Amounts are pence, times UTC.

    Raises `Rejected` naming file, line and column, before the first event, when a file is not what it should be."""
    lines = sorted((line for path in paths for line in _read(path)), key=lambda line: line.at)
    invoices: defaultdict[str, list[_Line]] = defaultdict(list)
    for line in lines:
        invoices[line.invoice].append(line)
        line.line_id = str(len(invoices[line.invoice]))
    unreturned: defaultdict[tuple[str, str], list[_Line]] = defaultdict(list)
    pieces: defaultdict[str, list[_Piece]] = defaultdict(list)
    for line in lines:
        invoice, sales = invoices[line.invoice], unreturned[line.customer, line.code]
        if line.is_credit:
            pieces[line.invoice].extend(_matched(line, sales))
            if line is invoice[-1]:
                yield from _requests(line, pieces.pop(line.invoice))
        else:
            sales.append(line)
            if line is invoice[0]:
                yield from _order(invoice)


def _matched(credit: _Line, sales: list[_Line]) -> Iterator[_Piece]:
    """Take the credit's units from the oldest sales first; what finds no sale is the last piece."""
    wanted = credit.units
    while wanted and sales:
        oldest = sales[0]
        units = min(wanted, oldest.left)
        yield _Piece(credit, oldest, units)
        oldest.left -= units
        wanted -= units
        if not oldest.left:
            sales.pop(0)
    if wanted:
        yield _Piece(credit, None, wanted)


def _order(invoice: list[_Line]) -> Iterator[Envelope]:
    """The order as paid, shipped a day and delivered three days later; nothing when nothing was paid."""
    order_id, at = invoice[0].invoice, invoice[0].at
    lines = [line.sold() for line in invoice]
    total = sum(line.amount for line in lines)
    if not total:
        return
    of_order = {"merchant": MERCHANT, "channel": CHANNEL, "order_id": order_id}
    tender = Tender(tender_id="1", kind="card", provider="sandbox", payment_ref=f"or-{order_id}", amount=total)
    paid = OrderPaid(
        **of_order,
        currency=CURRENCY,
        placed_at=at,
        buyer=Buyer(buyer_id=invoice[0].customer, locale="en"),
        lines=lines,
        tenders=[tender],
    )
    shipped = OrderShipped(**of_order, waybill=f"or-{order_id}", shipped_at=at + timedelta(days=1))
    delivered = OrderDelivered(**of_order, delivered_at=at + timedelta(days=3))
    for data in (paid, shipped, delivered):
        yield _envelope(order_id, at, data)


def _requests(last: _Line, pieces: list[_Piece]) -> Iterator[Envelope]:
    """A credit note, complete with its `last` line: a request on each order it takes from, then those on none."""
    on_orders: defaultdict[str, list[_Piece]] = defaultdict(list)
    for piece in pieces:
        if piece.sale:
            on_orders[piece.sale.invoice].append(piece)
    for order_id, of_order in on_orders.items():
        yield _request(last, order_id, order_id, _merged(of_order))
    for piece in pieces:
        if not piece.sale:
            line = RequestedLine(sku=piece.credit.sku, quantity=piece.units, amount=piece.amount)
            yield _request(last, piece.credit.line_id, None, [line])


def _merged(pieces: list[_Piece]) -> list[RequestedLine]:
    """One requested line for each sale line, units and amounts of its pieces summed."""
    on_lines: defaultdict[str, list[_Piece]] = defaultdict(list)
    for piece in pieces:
        if piece.sale:
            on_lines[piece.sale.line_id].append(piece)
    return [
        RequestedLine(
            line_id=line_id,
            sku=of_line[0].credit.sku,
            quantity=sum(piece.units for piece in of_line),
            amount=sum(piece.amount for piece in of_line),
        )
        for line_id, of_line in on_lines.items()
    ]


def _request(last: _Line, suffix: str, order_id: str | None, lines: list[RequestedLine]) -> Envelope:
    reference = f"{last.invoice}-{suffix}"
    data = AftersaleRequested(
        merchant=MERCHANT,
        channel=CHANNEL,
        reference=reference,
        kind=CaseKind.return_,
        order_id=order_id,
        currency=CURRENCY,
        reason="credit_note",
        lines=lines,
        requested_at=last.at,
    )
    return _envelope(reference, last.at, data)


def _envelope(reference: str, at: datetime, data: EventData) -> Envelope:
    return Envelope(id=f"{data.type_name}:{reference}", source=SOURCE, time=at, data=data)


def _read(path: Path) -> Iterator[_Line]:
    """The lines of one file that count, in file order."""
    here = f"{path}:1"
    try:
        with _opened(path) as file:
            reader = csv.DictReader(file, strict=True)
            absent = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if absent:
                raise Rejected(f"{here} has no such column", field=absent[0])
            for values in reader:
                here = f"{path}:{reader.line_num}"
                if line := _line(here, values):
                    yield line
    except (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Rejected(f"after {here}: {error}", field="file") from error


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _line(here: str, values: dict[str | None, str | None]) -> _Line | None:
    """The row at `here` as a line, or None when it does not count. Raises `Rejected`."""
    if None in values:
        raise Rejected(f"{here} has more fields than the header", field="row")
    try:
        row = _Row.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Rejected(f"{here}: {first['msg']}", field=str(first["loc"][0])) from error
    is_credit = row.invoice.startswith("C")
    units = -row.quantity if is_credit else row.quantity
    if not (row.customer and re.match(r"[0-9]{5}", row.code)) or (units <= 0 and not is_credit):
        return None
    if units <= 0:
        raise Rejected(f"{here}: a credit of {units} units", field="Quantity")
    # An amount of 0 cannot be asked for; a request that names none asks for all that was paid.
    if not (Decimal("0.01") if is_credit else 0) <= row.price <= _DEAREST:
        raise Rejected(f"{here}: {row.price} is no price here", field="UnitPrice")
    return _Line(
        invoice=intern(row.invoice),
        code=intern(row.code),
        title=intern(row.title),
        customer=intern(row.customer),
        at=row.at.replace(tzinfo=UTC),
        units=units,
        price=row.price,
        left=units,
    )
