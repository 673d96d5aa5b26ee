"""The journal for hledger: whatever the entries are, it says the same as they do, and its own assertions hold."""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.books.hledger import OPENING, Opening, journal
from domain.ledger import CHART, Account, Entry, Line, grant, movement, reversal
from domain.money import decimal

AT = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
CASE = "lanhua:tmall:R1"
Balances = dict[tuple[str, str], Decimal]

_HEAD = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)(?: \((?P<code>[^()]*)\))? (?P<text>[^;]*?)(?:  ; case:(?P<case>[^;,]*))?")
_POSTING = re.compile(r"    (?P<account>\S.*?)  (?P<amount>[A-Z]{3} -?[\d.]+)(?: = (?P<asserted>[A-Z]{3} -?[\d.]+))?")


class Journal:
    """A reader that knows no more of hledger than this: declarations, transactions that balance, assertions that hold."""

    def __init__(self, lines: list[str]) -> None:
        self.declared: set[str] = set()
        self.days: list[str] = []
        self.codes: list[str] = []
        self.cases: list[str] = []
        self.asserted = 0
        self.balances: Balances = defaultdict(Decimal)
        self._open: Balances = defaultdict(Decimal)
        for line in lines:
            assert "\n" not in line and line.isprintable(), line
            self._read(line)
        self._end_transaction()

    def _read(self, line: str) -> None:
        if match := _POSTING.fullmatch(line):
            self._post(match)
            return
        self._end_transaction()
        if match := _HEAD.fullmatch(line):
            assert not self.days or self.days[-1] <= match["day"], "days go forward"
            self.days.append(match["day"])
            if match["code"] is not None:
                self.codes.append(match["code"])
                self.cases.append(match["case"])
        elif line.startswith(("account ", "commodity ")):
            self.declared.add(line.split(" ", 1)[1].split("  ;")[0] if line.startswith("account") else line.split()[1])
        else:
            assert line == "" or line.startswith((";", "decimal-mark .")), line

    def _post(self, posting: re.Match[str]) -> None:
        account, (currency, amount) = posting["account"], posting["amount"].split()
        assert {account, currency} <= self.declared
        self.balances[account, currency] += Decimal(amount)
        self._open[account, currency] += Decimal(amount)
        if posting["asserted"]:
            assert posting["asserted"].split()[0] == currency
            assert self.balances[account, currency] == Decimal(posting["asserted"].split()[1])
            self.asserted += 1

    def _end_transaction(self) -> None:
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for (_, currency), amount in self._open.items():
            sums[currency] += amount
        assert not any(sums.values()), "a transaction does not balance"
        self._open.clear()


def written(entries: list[Entry], opening: Opening | None = None) -> list[str]:
    async def told() -> AsyncIterator[Entry]:
        for entry in entries:
            yield entry

    async def all_lines() -> list[str]:
        return [line async for line in journal(told(), opening)]

    return asyncio.run(all_lines())


def expected(entries: list[Entry]) -> Balances:
    totals: Balances = defaultdict(Decimal)
    for entry in entries:
        for line in entry.lines:
            totals[CHART[line.account][0], entry.currency] += Decimal(decimal(line.amount, entry.currency))
    return totals


def moved(balances: Balances) -> Balances:
    return {key: amount for key, amount in balances.items() if amount}


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Any balanced entry: hostile keys and texts, currencies with and without a minor unit, any zone."""
    accounts = draw(st.lists(st.sampled_from(Account), min_size=2, max_size=5, unique=True))
    amounts = draw(st.lists(st.integers(-(10**12), 10**12), min_size=len(accounts) - 1, max_size=len(accounts) - 1))
    lines = zip(accounts, [*amounts, -sum(amounts)], strict=True)
    zone = timezone(timedelta(hours=draw(st.integers(-12, 14))))
    return Entry(
        key=draw(st.text(max_size=40)),
        case_id=draw(st.text(max_size=40)),
        at=draw(st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 5), timezones=st.just(UTC))).astimezone(zone),
        text=draw(st.text(max_size=40)),
        currency=draw(st.sampled_from(["CNY", "GBP", "JPY", "KWD"])),
        lines=tuple(Line(account=account, amount=amount) for account, amount in lines),
    )


any_entries = st.lists(entries(), max_size=12).map(lambda some: sorted(some, key=lambda entry: entry.at))


@given(any_entries)
def test_any_entries_give_a_journal_that_holds_and_says_the_same(some: list[Entry]) -> None:
    read = Journal(written(some))

    assert moved(read.balances) == moved(expected(some))
    assert len(read.codes) == len(some)
    days = {(entry.at.astimezone(UTC).date(), entry.currency, line.account) for entry in some for line in entry.lines}
    assert read.asserted == len(days), "one assertion per account and currency on every day on which it moved"


@given(any_entries)
def test_a_journal_from_a_later_day_opens_with_what_was_owned_and_owed(some: list[Entry]) -> None:
    day = date(2026, 1, 3)
    before = [entry for entry in some if entry.at.astimezone(UTC).date() < day]
    balances: dict[tuple[Account, str], int] = defaultdict(int)
    for entry in before:
        for line in entry.lines:
            balances[line.account, entry.currency] += line.amount

    read = Journal(written([entry for entry in some if entry not in before], Opening(day, balances)))

    whole = expected(some)
    ours = {key: amount for key, amount in moved(read.balances).items() if key[0].startswith(("Assets", "Liabilities"))}
    assert ours == {key: amount for key, amount in moved(whole).items() if key[0].startswith(("Assets", "Liabilities"))}
    earned = expected(some[len(before) :])
    assert all(read.balances[key] == earned[key] for key in whole if key[0].startswith(("Revenue", "Expenses")))


def test_a_refund_granted_paid_and_taken_back_reads_like_this() -> None:
    paid = movement(f"refund:{CASE}:card:1", CASE, AT, "CNY", 5_000, by_hand=False)
    granted = grant(CASE, 1, AT, "CNY", gross=5_000, fee=0)
    back = reversal(paid, AT + timedelta(days=1), "The provider took the refund back")

    lines = written([granted, paid, back])

    start = lines.index("commodity CNY 0.00")
    assert lines[start:] == [
        "commodity CNY 0.00",
        "2026-11-22 (grant:lanhua:tmall:R1:1) Refund granted  ; case:lanhua:tmall:R1",
        "    Revenue:Sales returns  CNY 50.00",
        "    Liabilities:Refunds payable  CNY -50.00",
        "",
        "2026-11-22 (move:refund:lanhua:tmall:R1:card:1) Refund paid  ; case:lanhua:tmall:R1",
        "    Liabilities:Refunds payable  CNY 50.00",
        "    Assets:Payment clearing  CNY -50.00",
        "",
        "2026-11-22 Balances at the end of the day",
        "    Assets:Payment clearing  CNY 0.00 = CNY -50.00",
        "    Liabilities:Refunds payable  CNY 0.00 = CNY 0.00",
        "    Revenue:Sales returns  CNY 0.00 = CNY 50.00",
        "",
        "2026-11-23 (reverse:move:refund:lanhua:tmall:R1:card:1) The provider took the refund back  ; case:lanhua:tmall:R1",
        "    Liabilities:Refunds payable  CNY -50.00",
        "    Assets:Payment clearing  CNY 50.00",
        "",
        "2026-11-23 Balances at the end of the day",
        "    Assets:Payment clearing  CNY 0.00 = CNY 0.00",
        "    Liabilities:Refunds payable  CNY 0.00 = CNY -50.00",
    ]


def test_what_was_earned_before_becomes_equity_when_a_period_opens() -> None:
    opening = Opening(date(2026, 12, 1), {(Account.sales_returns, "CNY"): 5_000, (Account.payment_clearing, "CNY"): -5_000})

    read = Journal(written([], opening))

    assert read.balances == {("Assets:Payment clearing", "CNY"): Decimal(-50), (OPENING, "CNY"): Decimal(50)}
    assert set(read.days) == {"2026-12-01"}


def test_a_day_is_a_day_in_utc() -> None:
    shanghai = timezone(timedelta(hours=8))
    late = grant(CASE, 1, datetime(2026, 11, 23, 7, 59, tzinfo=shanghai), "CNY", gross=1, fee=0)
    assert set(Journal(written([late])).days) == {"2026-11-22"}


def test_no_entries_are_a_journal_that_says_so() -> None:
    assert written([])[-1] == "; no entries"
    assert "; no entries" not in written([grant(CASE, 1, AT, "CNY", gross=1, fee=0)])


@pytest.mark.parametrize("hostile", ["a;b", "a\nb", "a)b", "(a", "a\u2028b", "a\x00b", "a,b", "a\r\n2026-01-01 x"])
def test_nothing_in_a_key_or_text_ends_the_code_the_tag_or_the_line(hostile: str) -> None:
    entry = grant(CASE, 1, AT, "CNY", gross=1, fee=0).model_copy(update={"key": hostile, "case_id": hostile, "text": hostile})

    [head] = [line for line in written([entry]) if line.startswith("2026-11-22 (")]

    assert _HEAD.fullmatch(head) and head.count(";") == 1 and head.isprintable()
    assert head.index(")") < head.index("  ; case:")
