"""The journal of real records, judged by hledger itself."""

import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app, main
from db import ledger
from db.session import Database
from domain.cases import Counted
from domain.events import Grade
from domain.ledger import CountedAtCost, Entry, goods, grant, movement, reversal
from domain.settlement import Disposition

AT = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def hledger() -> str:
    """The program; where CI runs the tests, it has to be there."""
    found = shutil.which("hledger")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("hledger is not installed: `make tools`")
    return found or pytest.skip("hledger is not installed: `make tools`")


@pytest.fixture
async def books(db: Database, records_url: str, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Records that the command finds: three days of two cases in two currencies, one refund taken back."""
    monkeypatch.setenv("DATABASE_URL", records_url)
    async with db.write() as session:
        await ledger.post(session, _entries())
    return db


def _entries() -> list[Entry]:
    first, second = "lanhua:tmall:R1", "lanhua:web:R2"
    paid = movement(f"refund:{first}:card:1", first, AT + DAY, "CNY", 9_500, by_hand=False)
    counted = Counted(line_id="1", quantity=2, grade=Grade.sellable)
    received = goods("G1", second, AT, "JPY", [CountedAtCost(counted=counted, disposition=Disposition.restock, unit_cost=700)])
    assert received is not None
    return [
        grant(second, 1, AT + 2 * DAY, "JPY", gross=1_234_567, fee=0),  # posted first, happened last
        grant(first, 1, AT, "CNY", gross=10_000, fee=500),
        received,
        paid,
        reversal(paid, AT + 2 * DAY, "The provider took the refund back"),
    ]


def written(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["journal", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def ask(hledger: str, text: str, *arguments: str, exit_code: int = 0) -> str:
    """What hledger says of a journal; in a C locale, the poorest that it may run in."""
    done = subprocess.run(
        [hledger, "-f", "-", *arguments],
        input=text,
        capture_output=True,
        text=True,
        env={"LC_ALL": "C"},
        timeout=30,
        check=False,
    )
    assert (done.returncode == 0) == (exit_code == 0), done.stderr
    return done.stdout + done.stderr


def test_hledger_accepts_the_books_and_counts_as_we_do(books: Database, hledger: str) -> None:
    text = written("--format", "hledger")

    ask(hledger, text, "check", "--strict")
    balance = ask(hledger, text, "balance", "--flat", "--no-total", "--empty", "--layout=bare", "-O", "csv")
    assert set(balance.splitlines()[1:]) >= {
        '"Assets:Payment clearing","CNY","0"',
        '"Assets:Stock","JPY","1400"',
        '"Liabilities:Refunds payable","CNY","-95.00"',
        '"Liabilities:Refunds payable","JPY","-1234567"',
        '"Revenue:Return fees","CNY","-5.00"',
        '"Revenue:Sales returns","CNY","100.00"',
    }
    assert ask(hledger, text, "tags", "case", "--values").split() == ["lanhua:tmall:R1", "lanhua:web:R2"]
    assert "(move:refund:lanhua:tmall:R1:card:1)" in ask(hledger, text, "print", "code:^move:")


def test_hledger_refuses_the_books_when_an_amount_was_altered(books: Database, hledger: str) -> None:
    text = written()
    wrong = text.replace("= CNY -95.00", "= CNY -94.99", 1)
    assert wrong != text

    assert "balance assertion" in ask(hledger, wrong, "check", exit_code=1).lower()


def test_hledger_refuses_the_books_when_an_entry_is_missing(books: Database, hledger: str) -> None:
    parts = written().split("\n\n")
    less = "\n\n".join(part for part in parts if "(move:" not in part)
    assert len(less.split("\n\n")) == len(parts) - 1

    assert "balance assertion" in ask(hledger, less, "check", exit_code=1).lower()


def test_a_period_opens_with_what_the_last_one_left(books: Database, hledger: str) -> None:
    text = written("--from", "2026-11-22", "--to", "2026-11-22")

    ask(hledger, text, "check", "--strict")
    assert "reverse:" in text and "(move:" not in text
    assert ask(hledger, text, "balance", "--flat", "--no-total", "--layout=bare", "-O", "csv", "equity").splitlines()[1:] == [
        '"Equity:Opening balances","CNY","95.00"',
        '"Equity:Opening balances","JPY","-1400"',
    ]
    assert "-95.00" in ask(hledger, text, "balance", "--flat", "--no-total", "Refunds payable", "cur:CNY")


def test_one_day_alone_has_the_entries_of_that_utc_day(books: Database, hledger: str) -> None:
    text = written("--to", "2026-11-20")

    ask(hledger, text, "check", "--strict")
    assert ask(hledger, text, "codes").split() == ["grant:lanhua:tmall:R1:1", "goods:lanhua:web:R2:G1"]


async def test_more_entries_than_are_read_at_once_all_come(books: Database) -> None:
    async with books.write() as session:
        await ledger.post(session, [grant(f"lanhua:tmall:M{n}", 1, AT, "CNY", gross=1, fee=0) for n in range(1_200)])

    async with books.read() as session:
        keys = [entry.key async for entry in ledger.between(session, None, None)]

    assert len(set(keys)) == len(keys) == 1_200 + len(_entries())


def test_no_entries_at_all_are_a_journal_too(
    db: Database, records_url: str, hledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", records_url)
    text = written()

    ask(hledger, text, "check", "--strict")
    assert text.endswith("; no entries\n")


def test_a_file_is_written_whole(books: Database, tmp_path: Path) -> None:
    assert written("--out", str(tmp_path / "books.journal")) == ""
    assert (tmp_path / "books.journal").read_text(encoding="utf-8") == written()
    assert [path.name for path in tmp_path.glob("books*")] == ["books.journal"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "beancount"], "--format: 'beancount' is not a format"),
        (["--from", "2026-11-22", "--to", "2026-11-21"], "--to: 2026-11-21 is before"),
        (["--out", "/nowhere/books.journal"], "--out: /nowhere/books.journal cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_option(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["aftersales", "journal", *arguments])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert said in capsys.readouterr().err
