"""What we need of a payment provider."""

from typing import Protocol

from domain.cases import Model
from domain.effects import Outcome


class Refund(Model):
    """A refund of `amount` (minor units) under our `key`, of a payment of which `captured` was paid in all."""

    key: str
    payment_ref: str
    captured: int
    amount: int
    currency: str


class PaymentProvider(Protocol):
    async def submit(self, refund: Refund) -> Outcome:
        """Ask for the refund: succeeded, pending, or declined (surely nothing moved). Raises `OutcomeUnknown`,
        `DependencyDown`, `RateLimited`."""
        ...

    async def look_up(self, refund: Refund) -> Outcome:
        """What became of the key. *unknown* with cause `not_found` if the provider does not show it (yet)."""
        ...
