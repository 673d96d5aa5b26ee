"""Arithmetic on integer minor units, exact: a share is rounded half up, and shares of a whole always add up to it."""

from collections.abc import Sequence

_EXPONENTS = {"JPY": 0, "KRW": 0, "VND": 0, "KWD": 3, "BHD": 3}
"""ISO 4217 currencies whose minor unit is not a hundredth, as far as merchants here meet them."""


def share(amount: int, part: int, whole: int) -> int:
    """`amount × part / whole`, rounded half up; all non-negative, `whole` > 0."""
    return (2 * amount * part + whole) // (2 * whole)


def shares(amount: int, weights: Sequence[int]) -> list[int]:
    """Split `amount` by `weights` so that nothing is lost: each takes the difference of the rounded running totals, so
    the last takes the remainder. Weights must not all be zero."""
    whole, running, given, result = sum(weights), 0, 0, []
    for weight in weights:
        running += weight
        upto = share(amount, running, whole)
        result.append(upto - given)
        given = upto
    return result


def show(amount: int, currency: str) -> str:
    """For people: `12345, "CNY"` → `CNY 123.45`."""
    exponent = _EXPONENTS.get(currency, 2)
    sign, digits = "-" if amount < 0 else "", str(abs(amount)).zfill(exponent + 1)
    whole = f"{int(digits[: len(digits) - exponent]):,}"
    return f"{currency} {sign}{whole}" + (f".{digits[-exponent:]}" if exponent else "")


def decimal(amount: int, currency: str) -> str:
    """For files: `-12345, "CNY"` → `-123.45`, no grouping."""
    return show(amount, currency).split(" ", 1)[1].replace(",", "")
