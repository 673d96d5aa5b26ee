"""What we owe, and over which tenders it goes back: pure arithmetic, conserved to the minor unit."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Literal

from domain.cases import Claim, Counted, Model
from domain.errors import Conflict
from domain.events import Grade
from domain.money import share, shares

TenderKind = Literal["card", "wallet", "voucher"]


class TenderOrder(StrEnum):
    """`original_first`: cards and wallets before vouchers; `voucher_first`: the reverse; `pro_rata`: by what is left."""

    original_first = "original_first"
    voucher_first = "voucher_first"
    pro_rata = "pro_rata"


class Disposition(StrEnum):
    restock = "restock"
    refurbish = "refurbish"
    scrap = "scrap"
    return_to_vendor = "return_to_vendor"
    missing = "missing"


class GradeTerms(Model):
    """What one grade of returned unit is worth to the buyer, in per cent of what was paid, and where it goes."""

    pay_percent: int
    disposition: Disposition


class Settlement(Model):
    """What a case owes its buyer, by line and in whole. `amount` = Σ lines − `fee`, never below zero."""

    lines: tuple[Claim, ...]
    fee: int = 0

    @property
    def gross(self) -> int:
        return sum(line.amount for line in self.lines)

    @property
    def amount(self) -> int:
        return self.gross - self.fee


class TenderLeft(Model):
    """A payment of the order and the minor units that can still go back to it."""

    tender_id: str
    kind: TenderKind
    left: int


class Slice(Model):
    """A part of a refund on one tender."""

    tender_id: str
    amount: int


def owed_for_claims(claims: Sequence[Claim]) -> Settlement:
    """Nothing comes back: the claims are owed as they are."""
    return Settlement(lines=tuple(claims))


def owed_for_goods(
    claims: Sequence[Claim], counted: Sequence[Counted], grades: Mapping[Grade, GradeTerms], fee: int
) -> Settlement:
    """What the accepted units are worth: by grade, never more units than claimed (the best grades count first). The fee
    is kept back only as far as there is something to keep it from."""
    lines = []
    for claim in claims:
        units, points = claim.quantity, 0
        mine = [(grades[c.grade].pay_percent, c.quantity) for c in counted if c.line_id == claim.line_id]
        for percent, quantity in sorted(mine, reverse=True):
            points += percent * min(quantity, units)
            units -= min(quantity, units)
        if units < claim.quantity:
            amount = share(claim.amount, points, 100 * claim.quantity)
            lines.append(Claim(line_id=claim.line_id, quantity=claim.quantity - units, amount=amount))
    return Settlement(lines=tuple(lines), fee=min(fee, sum(line.amount for line in lines)))


def amended(owed: Settlement, amount: int) -> Settlement:
    """The same lines, but `amount` in all, by a person's word."""
    parts = shares(amount, [line.amount if owed.gross else line.quantity for line in owed.lines])
    lines = (line.model_copy(update={"amount": part}) for line, part in zip(owed.lines, parts, strict=True))
    return Settlement(lines=tuple(lines))


def over_tenders(amount: int, tenders: Sequence[TenderLeft], order: TenderOrder) -> tuple[Slice, ...]:
    """Split `amount` over what the tenders can take back; slices are positive and add up to `amount`.
    Raises `Conflict` when the tenders cannot take that much."""
    left = sum(tender.left for tender in tenders)
    if amount > left:
        raise Conflict(f"{amount} to refund, but the tenders can take back {left}")
    if order is TenderOrder.pro_rata:
        parts = _pro_rata(amount, [tender.left for tender in tenders])
    else:
        vouchers_last = order is TenderOrder.original_first
        ranked = sorted(tenders, key=lambda tender: (tender.kind == "voucher") == vouchers_last)
        taken: dict[str, int] = {}
        for tender in ranked:
            taken[tender.tender_id] = min(tender.left, amount - sum(taken.values()))
        parts = [taken[tender.tender_id] for tender in tenders]
    return tuple(Slice(tender_id=tender.tender_id, amount=part) for tender, part in zip(tenders, parts, strict=True) if part)


def _pro_rata(amount: int, left: list[int]) -> list[int]:
    """Shares of `amount` by what is left; running totals keep each share within its tender because amount ≤ Σ left."""
    return shares(amount, left) if amount else [0] * len(left)
