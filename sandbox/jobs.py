"""What the sandbox still has to do: settlements, deliveries of goods and webhooks, in one durable table.

Work on our own books runs in one transaction with the removal of its job, so it happens once. A webhook is removed after
it was taken, so it happens at least once, as with a real provider.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from enum import StrEnum

import httpx
from pydantic import BaseModel

from sandbox.store import Store

logger = logging.getLogger(__name__)

CONCURRENT_WEBHOOKS = 16
MAX_ATTEMPTS = 50
FIRST_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 5.0


class JobKind(StrEnum):
    settle = "settle"
    receive = "receive"
    webhook = "webhook"


class Jobs:
    """`on` says who does a kind of work on the books, `add` plans it, `run` works it all off until cancelled."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._work: dict[JobKind, Callable[[str], object]] = {}
        self._wake = asyncio.Event()
        self._in_flight: set[int] = set()
        self._attempts: dict[int, asyncio.Event] = {}

    def on(self, kind: JobKind, work: Callable[[str], object]) -> None:
        """`work` takes the payload and runs inside a transaction."""
        self._work[kind] = work

    def add(self, kind: JobKind, payload: BaseModel, *, after_seconds: float = 0.0, subject: str = "") -> int:
        """The id of the new job. To be called inside the transaction of what causes it."""
        added = self._store.execute(
            "INSERT INTO jobs (due_at, kind, subject, payload, attempts) VALUES (?, ?, ?, ?, 0)",
            *(time.time() + after_seconds, kind, subject, payload.model_dump_json()),
        )
        self._wake.set()
        assert added.lastrowid is not None
        return added.lastrowid

    def drop(self, kind: JobKind, subject: str) -> None:
        """Forget the planned work of this kind on `subject`."""
        self._store.execute("DELETE FROM jobs WHERE kind = ? AND subject = ?", kind, subject)

    async def attempted(self, webhooks: Iterable[int]) -> None:
        """Until each of these webhooks, added just now, was tried at least once."""
        for attempt in [self._attempts.setdefault(webhook, asyncio.Event()) for webhook in webhooks]:
            await attempt.wait()

    async def run(self, post: Callable[[str], Awaitable[None]]) -> None:
        """`post` delivers a webhook's payload, or raises httpx.HTTPError and is asked again later."""
        async with asyncio.TaskGroup() as deliveries:
            while True:
                self._wake.clear()
                try:
                    for webhook in self._work_off_books():
                        self._in_flight.add(webhook["id"])
                        deliveries.create_task(self._deliver(webhook, post))
                    pause = self._until_next()
                except sqlite3.Error:
                    logger.exception("the sandbox's books cannot be written, trying again")
                    pause = 1.0
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()

    def _waiting(self) -> str:
        """The condition for jobs that can be taken: not in flight, and no webhooks while all their places are taken."""
        in_flight = ",".join(map(str, self._in_flight))
        full = len(self._in_flight) >= CONCURRENT_WEBHOOKS
        return f"id NOT IN ({in_flight})" + (f" AND kind != '{JobKind.webhook}'" if full else "")

    def _work_off_books(self) -> list[sqlite3.Row]:
        """Does the due work on the books, and returns the due webhooks that have a place."""
        due = self._store.execute(
            f"SELECT * FROM jobs WHERE {self._waiting()} AND due_at <= ? ORDER BY due_at, id LIMIT 100", time.time()
        ).fetchall()
        webhooks = [job for job in due if job["kind"] == JobKind.webhook]
        for job in due:
            if job["kind"] != JobKind.webhook:
                self._perform(job)
        return webhooks[: CONCURRENT_WEBHOOKS - len(self._in_flight)]

    def _perform(self, job: sqlite3.Row) -> None:
        try:
            with self._store.transaction():
                self._work[JobKind(job["kind"])](job["payload"])
                self._remove(job)
        except Exception:
            logger.exception("job %s failed: %s", job["kind"], job["payload"])
            self._again(job)

    async def _deliver(self, job: sqlite3.Row, post: Callable[[str], Awaitable[None]]) -> None:
        try:
            try:
                await post(job["payload"])
            except httpx.HTTPError:
                self._again(job)
            else:
                self._remove(job)
        except sqlite3.Error:
            logger.exception("what became of a webhook cannot be written, it will be sent again")
            await asyncio.sleep(MAX_RETRY_SECONDS)
        finally:
            self._in_flight.discard(job["id"])
            if attempt := self._attempts.pop(job["id"], None):
                attempt.set()
            self._wake.set()

    def _again(self, job: sqlite3.Row) -> None:
        if job["attempts"] + 1 >= MAX_ATTEMPTS:
            logger.error("given up after %d attempts: %s %s", MAX_ATTEMPTS, job["kind"], job["payload"])
            self._remove(job)
            return
        pause = min(FIRST_RETRY_SECONDS * 2 ** job["attempts"], MAX_RETRY_SECONDS)
        self._store.execute("UPDATE jobs SET attempts = attempts + 1, due_at = ? WHERE id = ?", time.time() + pause, job["id"])

    def _remove(self, job: sqlite3.Row) -> None:
        self._store.execute("DELETE FROM jobs WHERE id = ?", job["id"])

    def _until_next(self) -> float | None:
        """Seconds until the next job that can be taken is due; None when there is none."""
        (due_at,) = self._store.execute(f"SELECT min(due_at) FROM jobs WHERE {self._waiting()}").fetchone()
        return None if due_at is None else max(0.0, due_at - time.time())
