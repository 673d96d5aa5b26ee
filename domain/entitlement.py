"""What can still be claimed on an order line: what was bought and paid, minus what all its cases reserved or took."""

from collections.abc import Iterable, Sequence
from typing import Literal

from domain.cases import Claim
from domain.errors import Rejected
from domain.events import AftersaleRequested, OrderLine
from domain.money import share

AbovePaid = Literal["reject", "cap"]
"""What to do with a request for more than was paid: refuse it at the door, or take it and approve what was paid."""


def value(line: OrderLine, quantity: int, before: int = 0) -> int:
    """What was paid for `quantity` units once `before` units are claimed; the values of all units add up to the line."""
    return share(line.amount, before + quantity, line.quantity) - share(line.amount, before, line.quantity)


def asked(request: AftersaleRequested, lines: Sequence[OrderLine], above_paid: AbovePaid) -> tuple[Claim, ...]:
    """The request as claims on the order. Raises `Rejected` naming the field: an unknown line, more units than were
    bought, or (where the policy says so) more money than was paid for those units."""
    bought = {line.line_id: line for line in lines}
    claims = []
    for index, wanted in enumerate(request.lines):
        where = f"data.lines.{index}"
        line = bought.get(wanted.line_id or "")
        if line is None:
            raise Rejected(f"the order has no line {wanted.line_id}", field=f"{where}.line_id", cause="unknown_line")
        if wanted.quantity > line.quantity:
            reason = f"{wanted.quantity} units asked of {line.quantity} bought"
            raise Rejected(reason, field=f"{where}.quantity", cause="more_than_bought")
        paid = -(-line.amount * wanted.quantity // line.quantity)  # up: `entitled` gives each unit its exact part
        if wanted.amount is not None and wanted.amount > paid and above_paid == "reject":
            reason = f"{wanted.amount} asked where {paid} was paid for {wanted.quantity} of {line.quantity} units"
            raise Rejected(reason, field=f"{where}.amount", cause="above_paid")
        amount = paid if wanted.amount is None else wanted.amount
        claims.append(Claim(line_id=line.line_id, quantity=wanted.quantity, amount=amount))
    return tuple(claims)


def entitled(line: OrderLine, wanted: Claim, others: Iterable[Claim]) -> Claim | None:
    """What `wanted` can have beside the `others` on the same line: the units whole or not at all, the amount capped by
    what was paid for them and by what is left. None when the units are not there."""
    others = list(others)
    units, amount = sum(claim.quantity for claim in others), sum(claim.amount for claim in others)
    if wanted.quantity > line.quantity - units:
        return None
    cap = min(value(line, wanted.quantity, before=units), line.amount - amount)
    return wanted.model_copy(update={"amount": max(0, min(wanted.amount, cap))})
