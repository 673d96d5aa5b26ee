"""Shares are exact to half a minor unit, add up to the whole, and are shown as people write them."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.money import decimal, share, shares, show

AMOUNTS = st.integers(0, 10**15)
WEIGHTS = st.lists(st.integers(0, 10**12), min_size=1, max_size=20).filter(any)


@given(amount=AMOUNTS, part=st.integers(0, 10**6), whole=st.integers(1, 10**6))
def test_a_share_is_within_half_a_minor_unit_of_the_exact_one(amount: int, part: int, whole: int) -> None:
    assert Fraction(-1, 2) < share(amount, part, whole) - Fraction(amount * part, whole) <= Fraction(1, 2)


def test_half_a_minor_unit_is_rounded_up() -> None:
    assert [share(1, 1, 2), share(3, 1, 2), share(5, 1, 2)] == [1, 2, 3]


@given(amount=AMOUNTS, weights=WEIGHTS)
def test_shares_add_up_to_the_whole_and_each_is_within_one_of_the_exact_one(amount: int, weights: list[int]) -> None:
    parts = shares(amount, weights)
    assert sum(parts) == amount
    for part, weight in zip(parts, weights, strict=True):
        assert part >= 0
        assert abs(part - Fraction(amount * weight, sum(weights))) < 1


def test_what_weighs_nothing_gets_nothing() -> None:
    assert shares(101, [0, 1, 0, 1, 0]) == [0, 51, 0, 50, 0]


@pytest.mark.parametrize(
    ("amount", "currency", "shown", "written"),
    [
        (12345, "CNY", "CNY 123.45", "123.45"),
        (-5, "CNY", "CNY -0.05", "-0.05"),
        (0, "GBP", "GBP 0.00", "0.00"),
        (123456789, "CNY", "CNY 1,234,567.89", "1234567.89"),
        (-1234, "JPY", "JPY -1,234", "-1234"),
        (0, "JPY", "JPY 0", "0"),
        (1234567, "KWD", "KWD 1,234.567", "1234.567"),
    ],
)
def test_money_is_written_with_the_digits_of_its_currency(amount: int, currency: str, shown: str, written: str) -> None:
    assert show(amount, currency) == shown
    assert decimal(amount, currency) == written


@given(amount=st.integers(-(10**15), 10**15))
def test_a_written_amount_reads_back_as_itself(amount: int) -> None:
    assert Decimal(decimal(amount, "CNY")) * 100 == amount
    assert Decimal(decimal(amount, "JPY")) == amount
    assert Decimal(decimal(amount, "KWD")) * 1000 == amount
