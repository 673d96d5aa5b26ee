"""Every posting rule balances, and what is granted is what moved and what is still payable."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.cases import Counted
from domain.errors import Invariant
from domain.events import Grade
from domain.ledger import CHART, Account, CountedAtCost, Entry, Line, goods, grant, movement, reversal
from domain.settlement import Disposition

AT = datetime(2026, 3, 2, tzinfo=UTC)
CASE = "lanhua:tmall:R1"
AMOUNTS = st.integers(-(10**12), 10**12)
POSITIVE = st.integers(1, 10**12)
ITEMS = st.lists(
    st.builds(
        CountedAtCost,
        counted=st.builds(Counted, line_id=st.just("1"), quantity=st.integers(1, 9), grade=st.sampled_from(Grade)),
        disposition=st.sampled_from([one for one in Disposition if one is not Disposition.missing]),
        unit_cost=st.integers(0, 10_000),
    ),
    max_size=6,
)


def item(quantity: int, disposition: Disposition, unit_cost: int) -> CountedAtCost:
    counted = Counted(line_id="1", quantity=quantity, grade=Grade.sellable)
    return CountedAtCost(counted=counted, disposition=disposition, unit_cost=unit_cost)


def balances(*entries: Entry) -> dict[Account, int]:
    """What all entries together leave on each account."""
    held: Counter[Account] = Counter()
    for entry in entries:
        assert sum(line.amount for line in entry.lines) == 0
        assert all(line.amount for line in entry.lines)
        for line in entry.lines:
            held[line.account] += line.amount
    return {account: amount for account, amount in held.items() if amount}


@pytest.mark.parametrize("credit", [-4, -6])
def test_an_entry_that_does_not_balance_cannot_be_made(credit: int) -> None:
    lines = (Line(account=Account.stock, amount=5), Line(account=Account.goods_sold, amount=credit))
    with pytest.raises(Invariant, match="entry k does not balance"):
        Entry(key="k", case_id=CASE, at=AT, text="", currency="CNY", lines=lines)


@given(gross=AMOUNTS, fee=AMOUNTS)
def test_a_grant_balances_and_owes_the_gross_less_the_fee(gross: int, fee: int) -> None:
    held = balances(grant(CASE, 1, AT, "CNY", gross=gross, fee=fee))
    assert held.get(Account.refunds_payable, 0) == fee - gross
    assert held.get(Account.sales_returns, 0) == gross
    assert held.get(Account.return_fees, 0) == -fee


@given(gross=AMOUNTS, fee=AMOUNTS)
def test_granting_less_by_the_same_takes_the_grant_back(gross: int, fee: int) -> None:
    first = grant(CASE, 1, AT, "CNY", gross=gross, fee=fee)
    assert balances(first, grant(CASE, 2, AT, "CNY", gross=-gross, fee=-fee)) == {}


@given(gross=st.integers(0, 10**12), fee=st.integers(0, 10**6), moved=st.lists(st.tuples(POSITIVE, st.booleans()), max_size=5))
def test_granted_is_moved_and_still_payable(gross: int, fee: int, moved: list[tuple[int, bool]]) -> None:
    moves = [
        movement(f"refund:{CASE}:t{index}:1", CASE, AT, "CNY", amount, by_hand=by_hand)
        for index, (amount, by_hand) in enumerate(moved)
    ]
    held = balances(grant(CASE, 1, AT, "CNY", gross=gross, fee=fee), *moves)
    assert -held.get(Account.refunds_payable, 0) == gross - fee - sum(amount for amount, _ in moved)
    assert -held.get(Account.paid_by_hand, 0) == sum(amount for amount, by_hand in moved if by_hand)
    assert -held.get(Account.payment_clearing, 0) == sum(amount for amount, by_hand in moved if not by_hand)


@given(items=ITEMS)
def test_goods_of_a_receipt_balance_at_cost(items: list[CountedAtCost]) -> None:
    cost = sum(one.unit_cost * one.counted.quantity for one in items)
    entry = goods("W1", CASE, AT, "CNY", items)
    assert (entry is None) == (cost == 0)
    assert (balances(entry) if entry else {}).get(Account.goods_sold, 0) == -cost


def test_goods_go_where_their_disposition_says() -> None:
    items = [
        item(1, Disposition.restock, 100),
        item(2, Disposition.refurbish, 10),
        item(3, Disposition.scrap, 5),
        item(1, Disposition.return_to_vendor, 7),
    ]
    entry = goods("W1", CASE, AT, "CNY", items)
    assert entry is not None
    assert balances(entry) == {
        Account.stock: 120,
        Account.goods_scrapped: 15,
        Account.goods_with_vendor: 7,
        Account.goods_sold: -142,
    }


@given(gross=POSITIVE, fee=st.integers(0, 10**6), amount=POSITIVE, items=ITEMS)
def test_a_reversal_cancels_its_entry_whole(gross: int, fee: int, amount: int, items: list[CountedAtCost]) -> None:
    entries = [
        grant(CASE, 1, AT, "CNY", gross=gross, fee=fee),
        movement(f"refund:{CASE}:t1:1", CASE, AT, "CNY", amount, by_hand=False),
        goods("W1", CASE, AT, "CNY", items),
    ]
    for entry in filter(None, entries):
        back = reversal(entry, AT + timedelta(days=9), "The provider failed it")
        assert balances(entry, back) == {}
        assert balances(back) == {account: -held for account, held in balances(entry).items()}
        assert (back.case_id, back.currency, back.text) == (CASE, "CNY", "The provider failed it")
        assert back.at == AT + timedelta(days=9)


def test_keys_come_from_business_data_and_no_two_postings_share_one() -> None:
    effect = f"refund:{CASE}:t1:1"
    granted, again = (grant(CASE, round_, AT, "CNY", gross=5, fee=1) for round_ in (1, 2))
    moved = movement(effect, CASE, AT, "CNY", 4, by_hand=True)
    received = goods("W1", CASE, AT, "CNY", [item(1, Disposition.restock, 3)])
    assert received is not None
    entries = [granted, again, moved, received, reversal(moved, AT, ""), reversal(received, AT, "")]
    assert [entry.key for entry in entries] == [
        f"grant:{CASE}:1",
        f"grant:{CASE}:2",
        f"move:{effect}",
        f"goods:{CASE}:W1",
        f"reverse:move:{effect}",
        f"reverse:goods:{CASE}:W1",
    ]
    assert all((entry.case_id, entry.at, entry.currency) == (CASE, AT, "CNY") for entry in entries)


def test_the_chart_names_every_account_once_in_both_languages() -> None:
    assert set(CHART) == set(Account)
    for names in zip(*CHART.values(), strict=True):
        assert all(names)
        assert len(set(names)) == len(CHART)
    for name, english, chinese in CHART.values():
        assert ":" in name and (name + english).isascii()
        assert any("一" <= character <= "鿿" for character in chinese)
