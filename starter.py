"""Events in, workflows started and told: the only place that starts, signals or updates a case.

An event is validated, committed to the inbox, and answered. What it means for our own records is done in that same commit
(`db.intake`); what a workflow has to hear is said after it, and what a crash leaves between the two the sweeper says again.
Every path may run twice: the inbox is unique by (source, id), a case by its id, a fact by the event that told it.

    python starter.py FILE     takes the events of a JSON-lines file, as `aftersales ingest FILE` does
"""

import asyncio
import json
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from db import inbox, intake
from db.intake import Routed
from db.models import InboxRow, InboxState
from db.session import Database
from domain.cases import CaseRequest, CaseView, Model, workflow_id
from domain.effects import Outcome
from domain.envelope import Event, parse_event, parse_json, storable
from domain.errors import AftersalesError, Conflict, DependencyDown, Invariant, NotFound, Rejected
from domain.policy import Policies
from domain.policy_file import parse
from domain.resolution import Judgement, Resolution
from engine import attributes
from engine.client import connect
from engine.logs import configure
from settings import Settings, load
from workflows.look_up import LookUp

log = structlog.get_logger()

_KEYS_AT_ONCE = 500

_PATIENCE = timedelta(seconds=15)
"""How long a person's word waits for a worker to take it."""


class AnswerStatus(StrEnum):
    accepted = "accepted"
    duplicate = "duplicate"
    waiting = "waiting"
    rejected = "rejected"


class Answer(Model):
    """What became of one event. `field` and `reason` tell what is wrong, or what it waits for."""

    status: AnswerStatus
    source: str = ""
    id: str = ""
    type: str = ""
    case_id: str | None = None
    field: str | None = None
    reason: str = ""
    conflict: bool = False

    @property
    def complaint(self) -> str:
        """What is wrong where, for people."""
        return f"{self.status}: {self.field}: {self.reason}" if self.field else f"{self.status}: {self.reason}"


class Starter:
    """`client` may be None where nothing can be told yet (the sweeper does it later)."""

    def __init__(
        self, db: Database, policies: Policies, client: Client | None, *, task_queue: str, order_wait: timedelta
    ) -> None:
        self._db, self._policies, self._client = db, policies, client
        self._task_queue, self._order_wait = task_queue, order_wait
        self._swept = 0

    # Events --------------------------------------------------------------------------------------------------------

    async def take_text(self, text: str | bytes) -> Answer:
        """One event as JSON text."""
        body = text.encode() if isinstance(text, str) else text
        try:
            raw = parse_json(body)
        except Rejected as error:
            return await self._refuse({}, body.decode("utf-8", "replace"), error)
        return await self.take(raw)

    async def take(self, raw: Any) -> Answer:
        """One event as decoded JSON. Never raises for what the event says; raises `DependencyDown` if it could not be
        stored."""
        body, now = json.dumps(raw, ensure_ascii=False), _now()
        try:
            event = parse_event(raw, now)
            row, new, routed = await self._accept(event, body, now)
        except (Rejected, Conflict) as error:
            return await self._refuse(raw, body, error)
        if routed is None:
            return self._answer(event, AnswerStatus.duplicate, row.case_id, row.reason)
        await self._follow_up(row.id, event, routed)
        if routed.duplicate or not new:
            return self._answer(event, AnswerStatus.duplicate, routed.case_id, routed.reason)
        status = AnswerStatus.waiting if routed.state in (InboxState.waiting, InboxState.orphan) else AnswerStatus.accepted
        return self._answer(event, status, routed.case_id, routed.reason)

    async def sweep(self, *, older_than: timedelta = timedelta(seconds=2)) -> int:
        """Finish what a crash, or an absent order or server, left undone; how many events moved on."""
        async with self._db.read() as session:
            ids = await inbox.unfinished(session, _now() - older_than, after=self._swept)
        self._swept = ids[-1] if ids else 0
        return sum([await self._again(id_) for id_ in ids])

    async def _accept(self, event: Event, body: str, now: datetime) -> tuple[InboxRow, bool, Routed | None]:
        """The commit that accepts an event: (row, whether it is new, what became of it). No `Routed` for one that is seen to
        already; one that its workflow has perhaps not heard of is routed again."""
        async with self._db.write() as session:
            row, new = await inbox.add(session, event, body, now)
            if not new and row.sha != event.sha:
                raise Conflict(f"event {event.id} of {event.source} was told before with another content", field="id")
            if not new and row.state is not InboxState.accepted:
                return row, new, None
            return row, new, await intake.apply(session, event, row, self._policies, now)

    async def _again(self, row_id: int) -> bool:
        """Route a stored event once more; whether it got further."""
        now = _now()
        async with self._db.write() as session:
            row = await session.get_one(InboxRow, row_id, with_for_update=True)
            was = row.state
            if was in (InboxState.processed, InboxState.rejected):
                return False
            event = parse_event(json.loads(row.body), row.received_at)
            try:
                routed = await intake.apply(session, event, row, self._policies, now)
            except (Rejected, Conflict) as error:
                row.state, row.reason, row.settled_at, row.event_id = InboxState.rejected, str(error), now, None
                return True
            if routed.state is InboxState.waiting and row.received_at < now - self._order_wait:
                row.state, row.reason, row.settled_at = InboxState.orphan, f"{row.reason}; given up waiting", now
        told = await self._follow_up(row_id, event, routed)
        return told or row.state is not was

    async def _follow_up(self, row_id: int, event: Event, routed: Routed) -> bool:
        """Tell the workflow, then let go on what waited for this; whether the workflow was told."""
        case_id = routed.case_id
        where = {"case_id": case_id, "workflow_id": workflow_id(case_id)} if case_id else {}
        log.info("event.taken", source=event.source, id=event.id, type=event.type, state=routed.state.value, **where)
        told = routed.state is InboxState.accepted and await self._tell(event, routed)
        if told:
            async with self._db.write() as session:
                await inbox.processed(session, row_id, _now())
        if routed.wakes:
            async with self._db.read() as session:
                ids = await inbox.waiting_for(session, routed.wakes)
            for waiting in ids:
                await self._again(waiting)
        return told

    async def _tell(self, event: Event, routed: Routed) -> bool:
        """Whether the workflow has heard it. What it has not heard stays in the inbox for the sweeper."""
        if self._client is None:
            return False
        assert routed.case_id is not None
        try:
            if routed.start:
                await self._start(routed.start)
            else:
                handle = self._client.get_workflow_handle(workflow_id(routed.case_id))
                await handle.signal(event.type, args=[f"{event.source}#{event.id}", event.data])
        except RPCError as error:
            where = {"case_id": routed.case_id, "workflow_id": workflow_id(routed.case_id)}
            log.warning("case.not_told", type=event.type, error=error.message, **where)
            return False
        return True

    async def _start(self, request: CaseRequest) -> None:
        assert self._client is not None
        pairs: list[SearchAttributePair[Any]] = [
            SearchAttributePair(attributes.CASE_KIND, request.kind.value),
            SearchAttributePair(attributes.CASE_STATUS, "open"),
            SearchAttributePair(attributes.MERCHANT, request.merchant),
            SearchAttributePair(attributes.CHANNEL, request.channel),
        ]
        if request.deadline:
            pairs.append(SearchAttributePair(attributes.DEADLINE, request.deadline))
        try:
            await self._client.start_workflow(
                request.kind.value,
                request,
                id=workflow_id(request.case_id),
                task_queue=self._task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                search_attributes=TypedSearchAttributes(pairs),
            )
        except WorkflowAlreadyStartedError:
            return  # by the process that crashed before it could say so

    async def _refuse(self, raw: Any, body: str, error: AftersalesError) -> Answer:
        names = ("source", "id", "type")
        said = {name: storable(str(raw.get(name, ""))) if isinstance(raw, dict) else "" for name in names}
        async with self._db.write() as session:
            reason = storable(str(error))
            await inbox.keep_rejected(session, said["source"], said["type"], storable(body), reason, _now())
        return Answer(
            status=AnswerStatus.rejected,
            field=error.field,
            reason=storable(error.message),
            conflict=isinstance(error, Conflict),
            **{name: text[:200] for name, text in said.items()},
        )

    @staticmethod
    def _answer(event: Event, status: AnswerStatus, case_id: str | None, reason: str) -> Answer:
        field, _, rest = reason.partition(": ") if reason.startswith("data.") else ("", "", reason)
        return Answer(
            status=status,
            source=event.source,
            id=event.id,
            type=event.type,
            case_id=case_id,
            field=field or None,
            reason=rest,
        )

    # People --------------------------------------------------------------------------------------------------------

    async def decide(self, case_id: str, judgement: Judgement) -> CaseView:
        """A person's decision on a case in review. Raises `Conflict` with the state it is in."""
        return await self._update(case_id, "decide", judgement)

    async def resolve(self, case_id: str, resolution: Resolution) -> CaseView:
        """A person's way out of attention. Raises `Conflict` if the case does not need it (any more)."""
        return await self._update(case_id, "resolve", resolution)

    async def view(self, case_id: str) -> CaseView:
        """What the workflow itself says: its answer while it runs, its result when it has ended. Raises `NotFound` if
        the server does not (or no longer) know it, or it was terminated or cancelled, `Invariant` if its workers fail on it."""
        handle = self._connected().get_workflow_handle(workflow_id(case_id), result_type=CaseView)
        try:
            if (await handle.describe()).close_time:
                view: CaseView = await handle.result()
            else:
                view = await handle.query("view", result_type=CaseView, rpc_timeout=_PATIENCE)
            return view
        except WorkflowFailureError as error:
            raise NotFound(f"the workflow of case {case_id} was ended from outside: {error.cause}") from error
        except WorkflowQueryFailedError as error:
            raise _stuck_worker(case_id) from error
        except RPCError as error:
            raise _named(error, case_id) from error

    async def ask_providers(self, keys: Sequence[str]) -> dict[str, Outcome]:
        """What the payment providers say of these refund keys now; asked by a worker, nothing is recorded."""
        found: dict[str, Outcome] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = list(keys[start : start + _KEYS_AT_ONCE])
            try:
                standings = await self._connected().execute_workflow(
                    LookUp.run,
                    some,
                    id=f"look_up/{uuid.uuid4()}",
                    task_queue=self._task_queue,
                    execution_timeout=timedelta(minutes=5),
                )
            except (WorkflowFailureError, RPCError) as error:
                raise DependencyDown(f"the providers could not be asked (is a worker running?): {error}") from error
            found |= {standing.key: standing.outcome for standing in standings}
        return found

    async def _update(self, case_id: str, name: str, what: Judgement | Resolution) -> CaseView:
        handle = self._connected().get_workflow_handle(workflow_id(case_id))
        try:
            view: CaseView = await handle.execute_update(name, what, result_type=CaseView, rpc_timeout=_PATIENCE)
            return view
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            raise Conflict(cause.message if isinstance(cause, ApplicationError) else str(cause)) from error
        except WorkflowUpdateRPCTimeoutOrCancelledError as error:
            raise DependencyDown("no worker took it in time: is one running? (aftersales up, or python worker.py)") from error
        except RPCError as error:
            raise _named(error, case_id) from error

    def _connected(self) -> Client:
        if self._client is None:
            raise DependencyDown("no Temporal server")
        return self._client


def _named(error: RPCError, case_id: str) -> AftersalesError:
    if error.status is RPCStatusCode.NOT_FOUND:
        return NotFound(f"case {case_id} has no running workflow")
    if error.status is RPCStatusCode.FAILED_PRECONDITION:
        return _stuck_worker(case_id)
    if error.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED):
        return DependencyDown("no worker answered in time: is one running? (aftersales up, or python worker.py)")
    return DependencyDown(f"the Temporal server says: {error.message}")


def _stuck_worker(case_id: str) -> Invariant:
    """The code, or the keys, of the running workers do not fit the case: it waits for workers that do."""
    return Invariant(f"the worker fails on case {case_id}: see `aftersales history {case_id}`")


def _now() -> datetime:
    return datetime.now(UTC)


async def take_lines(starter: Starter, whole: bytes, heard: Callable[[int, Answer], None]) -> Counter[str]:
    """Take the events of a JSON-lines text; how many of each answer. `heard` is told each answer with its line number."""
    counts: Counter[str] = Counter()
    for number, line in enumerate(whole.split(b"\n"), 1):
        if line.strip():
            answer = await starter.take_text(line)
            counts[answer.status.value] += 1
            heard(number, answer)
    return counts


def summary(counts: Counter[str]) -> str:
    """`12 accepted, 1 rejected`."""
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no events"


async def main(settings: Settings, whole: bytes) -> bool:
    """Take the events of a JSON-lines text and tell what became of them; whether none was rejected."""

    def heard(number: int, answer: Answer) -> None:
        if answer.status is AnswerStatus.rejected:
            sys.stderr.write(f"line {number}: {answer.complaint}\n")

    policies, wait = parse(settings.policy_texts()), timedelta(seconds=settings.order_wait_seconds)
    client, db = await connect(settings), Database(settings.records_url)
    try:
        starter = Starter(db, policies, client, task_queue=settings.task_queue, order_wait=wait)
        counts = await take_lines(starter, whole, heard)
    finally:
        await db.close()
    sys.stdout.write(f"{summary(counts)}\n")
    return not counts["rejected"]


if __name__ == "__main__":
    try:
        if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
            raise NotFound("say python starter.py FILE, and name a file that is there")
        loaded = load(log_level="warning")
        configure(loaded)
        sys.exit(0 if asyncio.run(main(loaded, Path(sys.argv[1]).read_bytes())) else 1)
    except AftersalesError as error:
        sys.stderr.write(f"aftersales: {error}\n")
        sys.exit(2)
