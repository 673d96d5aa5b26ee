"""The payment provider's own books: payments as they were captured, and every refund made on them."""

import sqlite3
import time
from dataclasses import astuple, dataclass
from enum import StrEnum
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from domain.events import Currency, PositiveAmount, Ref
from sandbox.refusals import Refused
from sandbox.store import Store


class RefundState(StrEnum):
    pending = "pending"
    succeeded = "succeeded"
    failed = "failed"


class RefundRequest(BaseModel):
    """Minor units; `captured` is the payment's captured total, by which the provider checks that we mean the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    payment_ref: Ref
    captured: PositiveAmount
    amount: PositiveAmount
    currency: Currency


@dataclass(frozen=True)
class Refund:
    refund_id: str
    key: str
    payment_ref: str
    amount: int
    currency: str
    state: str
    code: str
    """Why it failed; empty otherwise."""


@dataclass(frozen=True)
class Totals:
    """`calls` counts every POST that came in, `duplicated_keys` the keys under which more than one refund was made."""

    refunds: int
    succeeded: int
    succeeded_amount: int
    pending: int
    failed: int
    calls: int
    duplicated_keys: int


COLUMNS = "refund_id, key, payment_ref, amount, currency, state, code"


class RefundBooks:
    def __init__(self, store: Store) -> None:
        self._store = store

    def count_call(self) -> None:
        self._store.execute("INSERT INTO counters VALUES ('calls', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1")

    def open(self, key: str, asked: RefundRequest, *, blind_seconds: float) -> Refund:
        """A new pending refund, which lookups by key do not show for `blind_seconds`."""
        refund = Refund(f"re_{uuid4().hex}", key, asked.payment_ref, asked.amount, asked.currency, RefundState.pending, "")
        self._store.execute(
            f"INSERT INTO refunds ({COLUMNS}, visible_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *astuple(refund),
            time.time() + blind_seconds,
        )
        return refund

    def check_payment(self, asked: RefundRequest) -> None:
        """Opens the payment at first sight; Refused when the request does not fit what is known of it."""
        self._store.execute(
            "INSERT OR IGNORE INTO payments VALUES (?, ?, ?)", asked.payment_ref, asked.captured, asked.currency
        )
        payment = self._payment(asked.payment_ref)
        if payment["currency"] != asked.currency:
            raise Refused(422, "currency_mismatch", f"{asked.payment_ref} was paid in {payment['currency']}")
        if payment["captured"] != asked.captured:
            raise Refused(422, "captured_mismatch", f"{asked.payment_ref} captured {payment['captured']}")

    def exceeds(self, asked: RefundRequest) -> bool:
        (refunded,) = self._store.execute(
            "SELECT coalesce(sum(amount), 0) FROM refunds WHERE payment_ref = ? AND state != 'failed'",
            asked.payment_ref,
        ).fetchone()
        return bool(refunded + asked.amount > asked.captured)

    def settle(self, refund_id: str, state: RefundState, code: str) -> Refund:
        """Pending becomes succeeded or failed."""
        row = self._store.execute(
            f"UPDATE refunds SET state = ?, code = ? WHERE refund_id = ? AND state = 'pending' RETURNING {COLUMNS}",
            *(state, code, refund_id),
        ).fetchone()
        return Refund(**row)

    def of_id(self, refund_id: str) -> Refund:
        return Refund(**self._store.execute(f"SELECT {COLUMNS} FROM refunds WHERE refund_id = ?", refund_id).fetchone())

    def of_key(self, key: str, *, visible: bool = False) -> list[Refund]:
        """Oldest first; with `visible`, those that a lookup shows by now."""
        shown_until = time.time() if visible else float("inf")
        rows = self._store.execute(
            f"SELECT {COLUMNS} FROM refunds WHERE key = ? AND visible_at <= ? ORDER BY seq", key, shown_until
        )
        return [Refund(**row) for row in rows]

    def is_of(self, refund: Refund, asked: RefundRequest) -> bool:
        """Whether the refund was made by a request of this content."""
        payment = self._payment(refund.payment_ref)
        made_by = (refund.payment_ref, payment["captured"], refund.amount, refund.currency)
        return bool(made_by == (asked.payment_ref, asked.captured, asked.amount, asked.currency))

    def all(self, *, payment_ref: str | None, state: str | None) -> list[Refund]:
        rows = self._store.execute(
            f"SELECT {COLUMNS} FROM refunds WHERE payment_ref = coalesce(?, payment_ref)"
            " AND state = coalesce(?, state) ORDER BY seq",
            *(payment_ref, state),
        )
        return [Refund(**row) for row in rows]

    def totals(self) -> Totals:
        row = self._store.execute(
            """SELECT count(*) AS refunds, count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
            coalesce(sum(amount) FILTER (WHERE state = 'succeeded'), 0) AS succeeded_amount,
            count(*) FILTER (WHERE state = 'pending') AS pending, count(*) FILTER (WHERE state = 'failed') AS failed,
            coalesce((SELECT value FROM counters WHERE name = 'calls'), 0) AS calls,
            (SELECT count(*) FROM (SELECT 1 FROM refunds GROUP BY key HAVING count(*) > 1)) AS duplicated_keys
            FROM refunds"""
        ).fetchone()
        return Totals(**row)

    def _payment(self, payment_ref: str) -> sqlite3.Row:
        row: sqlite3.Row = self._store.execute("SELECT * FROM payments WHERE payment_ref = ?", payment_ref).fetchone()
        return row
