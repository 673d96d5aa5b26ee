"""Invoices and credit notes become orders and requests by the rules, and by the figures of an independent count."""

import gzip
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest

from adapters.platforms.online_retail import COLUMNS, Envelope, events
from domain.errors import Rejected
from domain.events import EVENT_TYPES, AftersaleRequested, OrderDelivered, OrderPaid, OrderShipped

DATA = Path(__file__).parents[3] / "shared" / "data" / "online-retail"
DAY = "2010-12-0{} 10:00:00"


def row(
    invoice: str,
    quantity: object,
    *,
    day: int = 1,
    code: str = "85123A",
    price: object = "2.55",
    customer: str = "17850.0",
) -> str:
    return f"{invoice},{code},WHITE HEART,{quantity},{DAY.format(day)},{price},{customer},United Kingdom"


def written(path: Path, *rows: str) -> Path:
    text = "\n".join([",".join([*COLUMNS, "Country"]), *rows, ""])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def told(tmp_path: Path, *rows: str) -> list[Envelope]:
    return list(events([written(tmp_path / "month.csv", *rows)]))


def orders(envelopes: Sequence[Envelope]) -> list[OrderPaid]:
    return [envelope.data for envelope in envelopes if isinstance(envelope.data, OrderPaid)]


def requests(envelopes: Sequence[Envelope]) -> list[AftersaleRequested]:
    return [envelope.data for envelope in envelopes if isinstance(envelope.data, AftersaleRequested)]


def asked(request: AftersaleRequested) -> list[tuple[str | None, int, int | None]]:
    return [(line.line_id, line.quantity, line.amount) for line in request.lines]


def test_an_invoice_is_an_order_paid_shipped_and_delivered(tmp_path: Path) -> None:
    envelopes = told(tmp_path, row("536365", 6), row("536365", 3, code="71053", price="3.39"))

    paid, shipped, delivered = (envelope.data for envelope in envelopes)
    assert isinstance(paid, OrderPaid)
    assert isinstance(shipped, OrderShipped)
    assert isinstance(delivered, OrderDelivered)
    lines = [(line.line_id, line.sku, line.quantity, line.amount) for line in paid.lines]
    assert lines == [("1", "85123A", 6, 1530), ("2", "71053", 3, 1017)]
    assert [(t.kind, t.payment_ref, t.amount) for t in paid.tenders] == [("card", "or-536365", 2547)]
    assert (paid.order_id, paid.currency, paid.buyer.buyer_id) == ("536365", "GBP", "17850")
    assert (shipped.shipped_at - paid.placed_at).days == 1
    assert (delivered.delivered_at - paid.placed_at).days == 3
    assert [envelope.id for envelope in envelopes] == [f"{envelope.type}:536365" for envelope in envelopes]


def test_only_product_lines_with_a_customer_and_units_are_sold(tmp_path: Path) -> None:
    kept, *others = row("1", 6), row("1", 1, code="POST"), row("1", 2, customer=""), row("1", -3), row("2", 1, code="M")

    (order,) = orders(told(tmp_path, *others[:2], kept, *others[2:]))

    assert [(line.line_id, line.quantity) for line in order.lines] == [("1", 6)]


def test_a_gift_stays_in_its_order_and_an_order_of_gifts_alone_is_no_order(tmp_path: Path) -> None:
    envelopes = told(tmp_path, row("1", 6), row("1", 1, code="22222", price="0.0"), row("2", 16, price="0"))

    (order,) = orders(envelopes)
    assert [line.amount for line in order.lines] == [1530, 0]
    assert len(envelopes) == 3


def test_a_half_penny_is_rounded_up(tmp_path: Path) -> None:
    (order,) = orders(told(tmp_path, row("1", 1, price="0.125"), row("1", 1, price="0.124")))

    assert [line.amount for line in order.lines] == [13, 12]


def test_a_credit_takes_the_oldest_sale_first_and_what_is_left_of_it(tmp_path: Path) -> None:
    sales = row("536001", 5, day=1), row("536002", 5, day=2)
    credits = row("C536003", -3, day=3), row("C536004", -4, day=4)

    first, *second = requests(told(tmp_path, *sales, *credits))

    assert (first.reference, first.order_id, asked(first)) == ("C536003-536001", "536001", [("1", 3, 765)])
    assert [(r.reference, asked(r)) for r in second] == [
        ("C536004-536001", [("1", 2, 510)]),
        ("C536004-536002", [("1", 2, 510)]),
    ]
    assert {(r.kind, r.reason, r.currency) for r in (first, *second)} == {("return", "credit_note", "GBP")}


def test_a_sale_after_the_credit_another_customer_or_another_code_is_no_match(tmp_path: Path) -> None:
    rows = row("C9", -1, day=1), row("536001", 5, day=2), row("C8", -1, day=3, customer="1"), row("C7", -1, code="85123B")

    assert [r.order_id for r in requests(told(tmp_path, *rows))] == [None, None, None]


def test_of_lines_at_the_same_time_the_first_in_the_file_is_earlier(tmp_path: Path) -> None:
    before, after = requests(told(tmp_path, row("C1", -1), row("536001", 5), row("C2", -1)))

    assert (before.order_id, after.order_id) == (None, "536001")


def test_a_line_out_of_time_is_put_where_its_date_is(tmp_path: Path) -> None:
    envelopes = told(tmp_path, row("C1", -1, day=2), row("536001", 5, day=1))

    assert [envelope.type for envelope in envelopes][-1] == "aftersale.requested"
    assert requests(envelopes)[0].order_id == "536001"


def test_an_order_comes_before_a_credit_on_it_though_its_invoice_goes_on_afterwards(tmp_path: Path) -> None:
    envelopes = told(tmp_path, row("536001", 5), row("C2", -1), row("536001", 1, code="22222", day=2))

    assert [envelope.type for envelope in envelopes][0::3] == ["order.paid", "aftersale.requested"]
    assert [line.sku for line in orders(envelopes)[0].lines] == ["85123A", "22222"]


def test_two_credit_lines_on_one_sale_line_are_one_requested_line(tmp_path: Path) -> None:
    (request,) = requests(told(tmp_path, row("536001", 5), row("C2", -1, price="2.55"), row("C2", -2, price="1.00")))

    assert asked(request) == [("1", 3, 455)]


def test_units_without_an_earlier_sale_are_a_request_without_an_order(tmp_path: Path) -> None:
    rows = row("536001", 2), row("C2", -1), row("C2", -4), row("C2", -7, code="22222")

    matched, rest, stranger = requests(told(tmp_path, *rows))

    assert (matched.reference, asked(matched)) == ("C2-536001", [("1", 2, 510)])
    assert (rest.reference, rest.order_id, asked(rest)) == ("C2-2", None, [(None, 3, 765)])
    assert (stranger.reference, stranger.lines[0].sku, asked(stranger)) == ("C2-3", "22222", [(None, 7, 1785)])


def test_plain_and_gzip_files_in_one_or_several_tell_the_same_events(tmp_path: Path) -> None:
    sale, credit = row("536001", 2, day=1), row("C2", -3, day=2)
    one = told(tmp_path, sale, credit)

    several = list(events([written(tmp_path / "a.csv.gz", sale), written(tmp_path / "b.csv", credit)]))

    assert several == one
    assert told(tmp_path, sale, credit) == one
    assert len({envelope.id for envelope in one}) == len(one) == 5


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (row("1", "six"), "Quantity"),
        (row("1", 9_000_000), "Quantity"),
        (row("C1", 6), "Quantity"),
        (row("1", 6, price="2,55"), "row"),
        (row("1", 6, price="cheap"), "UnitPrice"),
        (row("1", 6, price="-1"), "UnitPrice"),
        (row("C1", -6, price="0"), "UnitPrice"),
        (row("1", 6, customer="17 850"), "CustomerID"),
        (row("1/2", 6), "InvoiceNo"),
        (row("1", 6).replace("10:00:00", "25:00:00"), "InvoiceDate"),
        ("1,85123A", "Description"),
    ],
)
def test_a_bad_row_is_refused_by_file_line_and_column_before_anything_is_told(tmp_path: Path, bad: str, field: str) -> None:
    path = written(tmp_path / "month.csv", row("536001", 6), bad)

    with pytest.raises(Rejected) as refused:
        next(events([path]))

    assert refused.value.field == field
    assert refused.value.message.startswith(f"{path}:3")


def test_a_file_without_a_column_or_cut_short_is_refused(tmp_path: Path) -> None:
    headless = tmp_path / "headless.csv"
    headless.write_text("InvoiceNo,StockCode\n1,85123A\n")
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(written(tmp_path / "whole.csv.gz", row("1", 6)).read_bytes()[:-9])

    with pytest.raises(Rejected, match=r"Description: .*headless\.csv:1"):
        next(events([headless]))
    with pytest.raises(Rejected, match=r"cut\.csv\.gz"):
        next(events([cut]))


@pytest.fixture(scope="module")
def history() -> list[Envelope]:
    return list(events(months()))


def months() -> list[Path]:
    files = sorted(DATA.glob("2010-12.csv.gz")) + sorted(DATA.glob("2011-0[12].csv.gz"))
    if len(files) < 3:
        pytest.skip(f"the three months of UCI Online Retail are not in {DATA}")
    return files


def paid_by_line(history: Sequence[Envelope]) -> dict[tuple[str | None, str | None], tuple[int, int]]:
    return {(o.order_id, line.line_id): (line.amount, line.quantity) for o in orders(history) for line in o.lines}


def approved(history: Sequence[Envelope]) -> Iterator[int]:
    """Request by request, the smaller of what is asked and what was paid for the units."""
    paid = paid_by_line(history)
    for request in requests(history):
        for line in request.lines if request.order_id else []:
            amount, units = paid[request.order_id, line.line_id]
            share = (Decimal(amount) * line.quantity / units).quantize(Decimal(1), ROUND_HALF_UP)
            yield min(line.amount or 0, int(share))


def test_three_months_of_sales_add_up_to_the_independent_count(history: list[Envelope]) -> None:
    lines = [line for order in orders(history) for line in order.lines]
    gifts_alone = 1  # invoice 543599, one line of 16 units at £0.00

    assert len(lines) + gifts_alone == 67_051
    assert sum(line.amount for line in lines) == 1_574_863_38


def test_three_months_of_credit_notes_add_up_to_the_independent_count(history: list[Envelope]) -> None:
    cases = [request for request in requests(history) if request.order_id]
    orphans = [request for request in requests(history) if not request.order_id]

    def units(of: list[AftersaleRequested]) -> int:
        return sum(line.quantity for request in of for line in request.lines)

    def value(of: list[AftersaleRequested]) -> int:
        return sum(line.amount or 0 for request in of for line in request.lines)

    assert (units(cases + orphans), value(cases + orphans)) == (98_192, 116_935_23)
    assert (len(cases), units(cases), sum(approved(history))) == (591, 83_578, 103_212_15)
    assert (len(orphans), units(orphans), value(orphans)) == (657, 14_614, 13_610_37)


def test_every_real_event_is_accepted_once_in_time_and_after_its_order(history: list[Envelope]) -> None:
    known: set[str] = set()
    for envelope in history:
        EVENT_TYPES[envelope.type].model_validate(envelope.as_cloudevent()["data"], extra="forbid")
        if isinstance(envelope.data, OrderPaid):
            known.add(envelope.data.order_id)
        if isinstance(envelope.data, AftersaleRequested) and envelope.data.order_id:
            assert envelope.data.order_id in known

    assert [envelope.time for envelope in history] == sorted(envelope.time for envelope in history)
    assert Counter(envelope.id for envelope in history).most_common(1)[0][1] == 1


def test_one_month_alone_tells_the_same_of_itself_as_the_three_together(history: list[Envelope]) -> None:
    first = list(events(months()[:1]))

    assert first == history[: len(first)]
    assert len(list(events(months()[1:2]))) > 3_000
