"""The one way in which an activity touches the outside, and the one place where our errors become Temporal's.

    intent committed as *unknown*  →  call with the key  →  outcome committed

Whoever finds the intent *unknown* died in the middle of it, or had no answer: then only what may be repeated is called
again, and for the rest the other side is asked what it did.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import ParamSpec, TypeVar

import structlog
from structlog.contextvars import bound_contextvars
from temporalio import activity
from temporalio.exceptions import ApplicationError

from db import effects
from db.effects import Intent
from db.models import EffectRow
from db.session import Database
from domain.effects import EffectState, Outcome
from domain.errors import AftersalesError, DependencyDown, OutcomeUnknown, RateLimited, Rejected

log = structlog.get_logger()

P = ParamSpec("P")
R = TypeVar("R")
Ask = Callable[[], Awaitable[Outcome]]


def verb(work: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Names the case on every line that an activity logs, and lets our errors out of it as `ApplicationError(type=code)`:
    what saying it again cannot help is not retried, and a wish to come later is honoured."""

    @functools.wraps(work)
    async def told(*args: P.args, **kwargs: P.kwargs) -> R:
        workflow_id = (activity.in_activity() and activity.info().workflow_id) or ""
        try:
            with bound_contextvars(workflow_id=workflow_id, case_id=workflow_id.removeprefix("case/")):
                async with _heard_of():
                    return await work(*args, **kwargs)
        except AftersalesError as error:
            raise ApplicationError(
                str(error),
                error.cause if isinstance(error, Rejected) else "",
                type=error.code,
                non_retryable=not isinstance(error, DependencyDown | OutcomeUnknown),
                next_retry_delay=timedelta(seconds=error.retry_after) if isinstance(error, RateLimited) else None,
            ) from error

    return told


@asynccontextmanager
async def _heard_of() -> AsyncIterator[None]:
    """Tells the server that this process lives: what a killed one had begun is taken up when it is not heard of any more,
    and not only when the time of a whole attempt is over."""
    timeout = activity.info().heartbeat_timeout if activity.in_activity() else None

    async def beat(every: float) -> None:
        while True:
            await asyncio.sleep(every)
            activity.heartbeat()

    beating = asyncio.create_task(beat(timeout.total_seconds() / 3)) if timeout else None
    try:
        yield
    finally:
        if beating:
            beating.cancel()


class EffectLog:
    """Performs effects once per key. Repeatable effects are those that the other side recognises by their key."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def perform(self, intent: Intent, call: Ask) -> EffectRow:
        """A repeatable effect: called until it succeeded. One that was declined is asked again when somebody comes back to
        it: its decline was an answer, not an effect. Raises `DependencyDown` or `OutcomeUnknown` to be tried later."""
        row, first = await self._begin(intent, again=True)
        if row.state is not EffectState.unknown:
            return row
        return await self._conclude(intent.key, await self._called(intent.key, call, first=first))

    async def perform_once(self, intent: Intent, call: Ask, look_up: Ask, *, again: bool = False) -> EffectRow:
        """An effect that must not be called twice: if it may have been called before, it is looked up instead. Returns
        it *unknown* when nobody can tell. `again` is a person's word that the same key may be sent once more, if the
        lookup still shows nothing."""
        row, first = await self._begin(intent, again=False)
        if row.state is not EffectState.unknown:
            return row
        if not first:
            outcome = await self.looked_up(look_up)
            if outcome.cause != "not_found" or not again:
                return await self._conclude(intent.key, outcome)
            await self._begin(intent, again=True)
        try:
            outcome = await self._called(intent.key, call, first=first)
        except OutcomeUnknown as error:
            outcome = Outcome(state=EffectState.unknown, cause="no_answer", detail=error.message)
        return await self._conclude(intent.key, outcome)

    async def look_up(self, key: str, look_up: Ask) -> EffectRow:
        """Ask the other side about an effect that we wait for, and record what it says."""
        return await self._conclude(key, await self.looked_up(look_up))

    async def looked_up(self, look_up: Ask) -> Outcome:
        """What the other side says; a lookup that fails tells nothing."""
        try:
            return await look_up()
        except AftersalesError as error:
            return Outcome(state=EffectState.unknown, cause="lookup_failed", detail=str(error))

    async def _called(self, key: str, call: Ask, *, first: bool) -> Outcome:
        """The answer of a call. If it surely never left, and none left before it, the effect is as if never begun."""
        try:
            return await call()
        except DependencyDown:
            if first:
                await self._surely_undone(key)
            raise

    async def _begin(self, intent: Intent, *, again: bool) -> tuple[EffectRow, bool]:
        """(row, whether nobody can have called yet); the commit before the call."""
        async with self._db.write() as session:
            row = await effects.plan(session, intent, _now())
            first = row.state is EffectState.planned
            if first or (again and row.state in (EffectState.unknown, EffectState.declined)):
                effects.begin(row, _now())
        return row, first

    async def _surely_undone(self, key: str) -> None:
        async with self._db.write() as session:
            row = await session.get_one(EffectRow, key, with_for_update=True)
            if row.state is EffectState.unknown:
                row.state = EffectState.planned

    async def _conclude(self, key: str, outcome: Outcome) -> EffectRow:
        async with self._db.write() as session:
            row = await effects.conclude(session, key, outcome, _now())
            assert row is not None
            if outcome.state is EffectState.unknown and row.state is EffectState.unknown and row.cause != "amount_differs":
                row.cause, row.detail = outcome.cause, outcome.detail
        log.info("effect.concluded", key=key, state=row.state.value, cause=row.cause, calls=row.calls)
        return row


def _now() -> datetime:
    return datetime.now(UTC)
