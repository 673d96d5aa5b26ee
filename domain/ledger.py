"""Double-entry posting rules: pure functions from what happened to balanced journal entries.

Every entry has a key from business data, unique in the tables, so that posting twice is posting once. Amounts are signed
minor units: debit positive, credit negative; the lines of an entry add up to zero.

What we grant a buyer is a debt (`refunds_payable`) until the provider confirms that the money moved: granted = moved +
still payable, per case and in total.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import model_validator

from domain.cases import Counted, Model
from domain.errors import Invariant
from domain.settlement import Disposition


class Account(StrEnum):
    sales_returns = "sales_returns"
    refunds_payable = "refunds_payable"
    payment_clearing = "payment_clearing"
    paid_by_hand = "paid_by_hand"
    return_fees = "return_fees"
    stock = "stock"
    goods_sold = "goods_sold"
    goods_scrapped = "goods_scrapped"
    goods_with_vendor = "goods_with_vendor"


CHART: dict[Account, tuple[str, str, str]] = {
    Account.sales_returns: ("Revenue:Sales returns", "Sales returns and allowances", "销售退回"),
    Account.refunds_payable: ("Liabilities:Refunds payable", "Refunds owed to buyers", "应付退款"),
    Account.payment_clearing: ("Assets:Payment clearing", "Money at the payment providers", "支付渠道结算"),
    Account.paid_by_hand: ("Assets:Paid by hand", "Refunds paid by voucher", "线下退款"),
    Account.return_fees: ("Revenue:Return fees", "Fees kept back on returns", "退货手续费"),
    Account.stock: ("Assets:Stock", "Goods back in stock, at cost", "库存商品"),
    Account.goods_sold: ("Expenses:Cost of goods sold", "Cost of goods sold", "主营业务成本"),
    Account.goods_scrapped: ("Expenses:Goods scrapped", "Returned goods written off, at cost", "报废损失"),
    Account.goods_with_vendor: (
        "Assets:Goods with vendor",
        "Goods on their way back to the vendor, at cost",
        "退供货商在途",
    ),
}
"""Account → (name in a journal, English, Chinese)."""

_GOODS_GO_TO = {
    Disposition.restock: Account.stock,
    Disposition.refurbish: Account.stock,
    Disposition.scrap: Account.goods_scrapped,
    Disposition.return_to_vendor: Account.goods_with_vendor,
}


class Line(Model):
    account: Account
    amount: int


class Entry(Model):
    """A journal entry. `key` makes it unique; `at` is when it happened in UTC."""

    key: str
    case_id: str
    at: datetime
    text: str
    currency: str
    lines: tuple[Line, ...]

    @model_validator(mode="after")
    def _balances(self) -> Self:
        if sum(line.amount for line in self.lines) != 0:
            raise Invariant(f"entry {self.key} does not balance")
        return self


def _entry(key: str, case_id: str, at: datetime, text: str, currency: str, *lines: tuple[Account, int]) -> Entry:
    kept = tuple(Line(account=account, amount=amount) for account, amount in lines if amount)
    return Entry(key=key, case_id=case_id, at=at, text=text, currency=currency, lines=kept)


def grant(case_id: str, round_: int, at: datetime, currency: str, *, gross: int, fee: int) -> Entry:
    """We owe the buyer `gross` − `fee`. Negative amounts take an earlier grant back in part."""
    return _entry(
        f"grant:{case_id}:{round_}", case_id, at, "Refund granted", currency,
        (Account.sales_returns, gross), (Account.refunds_payable, fee - gross), (Account.return_fees, -fee),
    )  # fmt: skip


def movement(effect_key: str, case_id: str, at: datetime, currency: str, amount: int, *, by_hand: bool) -> Entry:
    """The confirmed outcome: `amount` has left, at the provider or by a voucher."""
    paid_from = Account.paid_by_hand if by_hand else Account.payment_clearing
    return _entry(
        f"move:{effect_key}", case_id, at, "Refund paid by hand" if by_hand else "Refund paid", currency,
        (Account.refunds_payable, amount), (paid_from, -amount),
    )  # fmt: skip


def reversal(entry: Entry, at: datetime, text: str) -> Entry:
    """Takes `entry` back whole, under its own key."""
    lines = ((line.account, -line.amount) for line in entry.lines)
    return _entry(f"reverse:{entry.key}", entry.case_id, at, text, entry.currency, *lines)


class CountedAtCost(Model):
    """Counted units with where they go and what one of them is worth in stock (minor units)."""

    counted: Counted
    disposition: Disposition
    unit_cost: int


def goods(receipt_id: str, case_id: str, at: datetime, currency: str, counted: Iterable[CountedAtCost]) -> Entry | None:
    """Goods of one receipt, at cost: back to stock, scrapped, or on their way to the vendor. None where nothing has a
    cost."""
    into: dict[Account, int] = {}
    for item in counted:
        account = _GOODS_GO_TO[item.disposition]
        into[account] = into.get(account, 0) + item.unit_cost * item.counted.quantity
    entry = _entry(
        f"goods:{case_id}:{receipt_id}", case_id, at, "Goods received", currency,
        *into.items(), (Account.goods_sold, -sum(into.values())),
    )  # fmt: skip
    return entry if entry.lines else None
