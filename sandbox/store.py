"""The sandbox's own SQLite file: everything it knows or still has to do, so that kill -9 loses nothing."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS payments (payment_ref TEXT PRIMARY KEY, captured INTEGER, currency TEXT);
CREATE TABLE IF NOT EXISTS refunds (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, refund_id TEXT UNIQUE, key TEXT, payment_ref TEXT, amount INTEGER,
    currency TEXT, state TEXT, code TEXT, visible_at REAL);
CREATE INDEX IF NOT EXISTS refunds_key ON refunds (key);
CREATE INDEX IF NOT EXISTS refunds_payment_ref ON refunds (payment_ref);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER);
CREATE TABLE IF NOT EXISTS returns (rma TEXT PRIMARY KEY, announced TEXT, state TEXT);
CREATE TABLE IF NOT EXISTS receipts (
    rma TEXT, receipt_id TEXT, corrects TEXT, lines TEXT, PRIMARY KEY (rma, receipt_id));
CREATE TABLE IF NOT EXISTS plans (rma TEXT PRIMARY KEY, plan TEXT);
CREATE TABLE IF NOT EXISTS stops (order_ref TEXT, case_id TEXT, PRIMARY KEY (order_ref, case_id));
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, webhook_id TEXT UNIQUE, case_id TEXT, message TEXT, count INTEGER);
CREATE INDEX IF NOT EXISTS messages_case_id ON messages (case_id);
CREATE TABLE IF NOT EXISTS faults (
    id INTEGER PRIMARY KEY AUTOINCREMENT, match TEXT, fault TEXT, times INTEGER, seconds REAL);
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, due_at REAL, kind TEXT, subject TEXT, payload TEXT, attempts INTEGER);
CREATE INDEX IF NOT EXISTS jobs_due_at ON jobs (due_at);
"""


class Store:
    """One connection, synchronous on purpose: a statement takes microseconds, and no `await` splits a transaction."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(SCHEMA)

    def execute(self, sql: str, *parameters: str | int | float | None) -> sqlite3.Cursor:
        return self._connection.execute(sql, parameters)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing; never `await` inside, the connection is shared."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()
