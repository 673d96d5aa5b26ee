"""What we need of a warehouse. Every call may be repeated under its key: it has no second effect."""

from typing import Protocol

from domain.cases import Model
from domain.effects import Outcome


class ExpectedLine(Model):
    line_id: str
    sku: str
    quantity: int


class ReturnNotice(Model):
    """An RMA: these units of an order are coming back."""

    rma: str
    order_id: str
    merchant: str
    lines: tuple[ExpectedLine, ...]


class StopOrder(Model):
    """Units of an order that must not leave."""

    order_key: str
    case_id: str
    lines: tuple[ExpectedLine, ...]


class Warehouse(Protocol):
    """Answers *succeeded*, or *declined* with the warehouse's cause. Raises `OutcomeUnknown`, `DependencyDown`."""

    async def expect_return(self, notice: ReturnNotice) -> Outcome:
        """`detail` of a success is the address to send the goods to."""
        ...

    async def cancel_return(self, rma: str) -> Outcome: ...

    async def stop_shipment(self, stop: StopOrder) -> Outcome: ...
