"""The books as a journal for hledger (https://hledger.org/hledger.html#journal), written as the entries come.

Every account and commodity is declared, so that `hledger check --strict` holds, and every day ends with an assertion of each
balance that moved: a line that is lost, doubled or altered later does not pass the check. We add nothing that is not ASCII,
because hledger refuses anything else in a C locale.
"""

from collections import defaultdict
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date

from domain.ledger import CHART, Account, Entry
from domain.money import decimal

OPENING = "Equity:Opening balances"

_CARRIED_OVER = ("Assets:", "Liabilities:")
"""A new period owns and owes what the last one left; it has earned and spent nothing yet."""

_PREAMBLE = (
    "; The books of Aftersales. Amounts: debit positive, credit negative. Days: UTC.",
    "decimal-mark .",
    *(f"account {name}  ; {english}" for name, english, _ in CHART.values()),
    f"account {OPENING}",
)


@dataclass(frozen=True)
class Opening:
    """What was on each account, by currency and in minor units, when `day` began."""

    day: date
    balances: Mapping[tuple[Account, str], int]


async def journal(entries: AsyncIterable[Entry], opening: Opening | None = None) -> AsyncIterator[str]:
    """The journal's lines, without line ends. `entries` come ordered by their UTC day, none before `opening.day`."""
    books = _Books()
    for line in _PREAMBLE:
        yield line
    for line in books.open(opening) if opening else ():
        yield line
    async for entry in entries:
        for line in books.post(entry):
            yield line
    for line in books.end_day():
        yield line
    if books.day is None:
        yield "; no entries"


class _Books:
    """Running balances in minor units, and which of them moved on the present day."""

    def __init__(self) -> None:
        self.day: date | None = None
        self._balances: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._moved: set[tuple[str, str]] = set()
        self._currencies: set[str] = set()

    def open(self, opening: Opening) -> list[str]:
        """The entry that carries the last period over; what it earned and spent has become equity."""
        amounts: defaultdict[tuple[str, str], int] = defaultdict(int)
        for (account, currency), amount in opening.balances.items():
            if amount and CHART[account][0].startswith(_CARRIED_OVER):
                amounts[CHART[account][0], currency] += amount
                amounts[OPENING, currency] -= amount
        if not amounts:
            return []
        self.day = opening.day
        return [
            "",
            *self._declare(currency for _, currency in amounts),
            f"{opening.day} Opening balances",
            *self._move(amounts),
        ]

    def post(self, entry: Entry) -> list[str]:
        day = entry.at.astimezone(UTC).date()
        lines = self.end_day() if day != self.day else []
        self.day = day
        amounts: defaultdict[tuple[str, str], int] = defaultdict(int)
        for line in entry.lines:
            amounts[CHART[line.account][0], entry.currency] += line.amount
        head = f"{day} ({_code(entry.key)}) {_text(entry.text)}  ; case:{_text(entry.case_id)}"
        return [*lines, "", *self._declare([entry.currency]), head, *self._move(amounts)]

    def end_day(self) -> list[str]:
        """Assert what moved since the last time."""
        if not self._moved:
            return []
        asserted = []
        for account, currency in sorted(self._moved):
            balance = decimal(self._balances[account, currency], currency)
            asserted.append(f"    {account}  {currency} {decimal(0, currency)} = {currency} {balance}")
        self._moved.clear()
        return ["", f"{self.day} Balances at the end of the day", *asserted]

    def _declare(self, currencies: Iterable[str]) -> list[str]:
        new = sorted(set(currencies) - self._currencies)
        self._currencies.update(new)
        samples = [(currency, decimal(0, currency)) for currency in new]
        # The mark is part of the notation: by it hledger knows the digits of the minor unit.
        return [f"commodity {currency} {zero if '.' in zero else zero + '.'}" for currency, zero in samples]

    def _move(self, amounts: Mapping[tuple[str, str], int]) -> list[str]:
        for key, amount in amounts.items():
            self._balances[key] += amount
        self._moved.update(amounts)
        return [f"    {account}  {currency} {decimal(amount, currency)}" for (account, currency), amount in amounts.items()]


def _text(text: str) -> str:
    """One line in which hledger sees no comment and no end of a tag."""
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(printable.replace(";", ".").replace(",", ".").split())


def _code(key: str) -> str:
    """A transaction code ends at the first closing parenthesis."""
    return _text(key).replace("(", "[").replace(")", "]")
