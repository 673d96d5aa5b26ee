"""What cases take of an order line never exceeds what was bought and paid, and all of it can be had to the minor unit."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.cases import Claim
from domain.entitlement import AbovePaid, asked, entitled, value
from domain.errors import Rejected
from domain.events import AftersaleRequested, CaseKind, OrderLine, RequestedLine

LINES = st.builds(OrderLine, line_id=st.just("1"), sku=st.just("A"), quantity=st.integers(1, 12), amount=st.integers(0, 1_000))
ASKED_FOR = st.tuples(st.integers(1, 12), st.integers(0, 1_200))
"""Units and minor units, some more than any line has."""


def line(quantity: int, amount: int, line_id: str = "1") -> OrderLine:
    return OrderLine(line_id=line_id, sku="A", quantity=quantity, amount=amount)


def request(*lines: RequestedLine, order_id: str | None = "O1") -> AftersaleRequested:
    return AftersaleRequested(
        merchant="lanhua",
        channel="tmall",
        reference="R1",
        kind=CaseKind.refund,
        order_id=order_id,
        currency="CNY",
        reason="quality",
        lines=list(lines),
        requested_at=datetime(2026, 3, 2, tzinfo=UTC),
    )


def claim(quantity: int, amount: int) -> Claim:
    return Claim(line_id="1", quantity=quantity, amount=amount)


@given(bought=LINES, wanted=st.lists(ASKED_FOR | st.just("release"), max_size=20))
def test_no_sequence_of_claims_and_releases_exceeds_what_was_bought_and_paid(
    bought: OrderLine, wanted: list[tuple[int, int] | str]
) -> None:
    held: list[Claim] = []
    for step in wanted:
        if isinstance(step, str):
            held = held[1:]
        elif got := entitled(bought, claim(*step), held):
            assert got.quantity == step[0]
            assert 0 <= got.amount <= step[1]
            held.append(got)
        assert sum(one.quantity for one in held) <= bought.quantity
        assert sum(one.amount for one in held) <= bought.amount


@given(bought=LINES, wanted=st.lists(ASKED_FOR, max_size=8))
def test_units_are_refused_exactly_when_they_are_not_there(bought: OrderLine, wanted: list[tuple[int, int]]) -> None:
    held: list[Claim] = []
    for quantity, amount in wanted:
        got = entitled(bought, claim(quantity, amount), held)
        assert (got is None) == (quantity > bought.quantity - sum(one.quantity for one in held))
        held += [got] if got else []


@given(bought=LINES, data=st.data())
def test_all_units_in_any_portions_are_worth_exactly_what_was_paid(bought: OrderLine, data: st.DataObject) -> None:
    cuts = data.draw(st.sets(st.integers(1, bought.quantity)))
    portions = [after - before for before, after in pairwise(sorted({0, *cuts, bought.quantity}))]
    held: list[Claim] = []
    for portion in portions:
        got = entitled(bought, claim(portion, bought.amount), held)
        assert got is not None
        assert got.amount == value(bought, portion, before=sum(one.quantity for one in held))
        held.append(got)
    assert sum(one.amount for one in held) == bought.amount


@given(bought=LINES)
def test_requests_that_name_no_amount_get_the_whole_line_back_unit_by_unit(bought: OrderLine) -> None:
    held: list[Claim] = []
    for _ in range(bought.quantity):
        (wanted,) = asked(request(RequestedLine(line_id="1", quantity=1)), [bought], "reject")
        got = entitled(bought, wanted, held)
        assert got is not None
        held.append(got)
    assert sum(one.amount for one in held) == bought.amount


def test_a_claim_beside_a_dearer_one_gets_what_is_left_and_never_less_than_nothing() -> None:
    assert entitled(line(3, 100), claim(1, 50), [claim(1, 90)]) == claim(1, 10)
    assert entitled(line(3, 100), claim(1, 50), [claim(1, 130)]) == claim(1, 0)


def test_a_request_becomes_claims_with_what_was_paid_filled_in() -> None:
    wanted = request(RequestedLine(line_id="2", quantity=3), RequestedLine(line_id="1", quantity=1, amount=20))
    assert asked(wanted, [line(4, 100), line(3, 700, "2")], "reject") == (
        Claim(line_id="2", quantity=3, amount=700),
        Claim(line_id="1", quantity=1, amount=20),
    )


@pytest.mark.parametrize(
    ("wanted", "field", "cause"),
    [
        (RequestedLine(line_id="9", quantity=1), "data.lines.1.line_id", "unknown_line"),
        (RequestedLine(line_id="2", quantity=5), "data.lines.1.quantity", "more_than_bought"),
        (RequestedLine(line_id="2", quantity=2, amount=51), "data.lines.1.amount", "above_paid"),
    ],
)
def test_a_request_that_the_order_does_not_bear_is_refused_naming_the_field(
    wanted: RequestedLine, field: str, cause: str
) -> None:
    with pytest.raises(Rejected) as refused:
        asked(request(RequestedLine(line_id="1", quantity=1), wanted), [line(4, 100), line(4, 100, "2")], "reject")
    assert (refused.value.field, refused.value.cause) == (field, cause)


def test_a_request_that_names_no_line_is_refused_on_any_order() -> None:
    with pytest.raises(Rejected, match=r"data\.lines\.0\.line_id"):
        asked(request(RequestedLine(quantity=1), order_id=None), [line(4, 100)], "cap")


@pytest.mark.parametrize("above_paid", ["reject", "cap"])
def test_exactly_what_was_paid_can_be_asked_for(above_paid: AbovePaid) -> None:
    assert asked(request(RequestedLine(line_id="1", quantity=2, amount=50)), [line(4, 100)], above_paid) == (claim(2, 50),)


def test_where_the_policy_caps_a_dear_request_is_taken_and_gets_what_was_paid() -> None:
    (wanted,) = asked(request(RequestedLine(line_id="1", quantity=2, amount=99)), [line(4, 100)], "cap")
    assert wanted.amount == 99
    assert entitled(line(4, 100), wanted, []) == claim(2, 50)
