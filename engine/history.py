"""A case's own history on the Temporal server, told in the words of the business.

The tables say how a case stands; the history says how it came there: what was tried and how often, what went wrong, what
the outside and people said, how long was waited. Payloads and failures are opened with the client's keys.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import singledispatchmethod
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState, TimeoutType, WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.history import v1 as api
from temporalio.api.workflow.v1 import PendingActivityInfo, PendingWorkflowTaskInfo
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from domain import money
from domain.cases import CaseRequest, CaseView
from domain.errors import DependencyDown, NotFound
from domain.events import EVENT_TYPES
from engine import steps as words
from engine.steps import Step, StepState


async def tell(client: Client, workflow_id: str) -> list[Step]:
    """The steps of a workflow, oldest first; those that are not over say what it waits for. Raises `NotFound` if the
    server has no such history (any more), `DependencyDown` if it does not answer."""
    try:
        described = (await client.get_workflow_handle(workflow_id).describe()).raw_description
        run_id = described.workflow_execution_info.execution.run_id
        history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            reason = f"the Temporal server has no history of {workflow_id}: those of closed cases are kept for a time only"
            raise NotFound(reason) from error
        raise DependencyDown(f"the Temporal server says: {error.message}") from error
    telling = _Telling(client.data_converter)
    for event in history.events:
        if kind := event.WhichOneof("attributes"):
            await telling.hear(getattr(event, kind), event)
    for pending in described.pending_activities:
        await telling.pending(pending)
    if described.HasField("pending_workflow_task"):
        telling.pending_task(described.pending_workflow_task)
    return telling.steps


class _Telling:
    """Hears events in their order; what begins in one event and ends in another is one step."""

    def __init__(self, converter: DataConverter) -> None:
        self.steps: list[Step] = []
        self._converter = converter
        self._begun: dict[int, int] = {}
        """Event id → index of the step that began with it."""
        self._activities: dict[str, int] = {}
        """Activity id → index of its step."""
        self._currency = ""

    @singledispatchmethod
    async def hear(self, told: Message, event: api.HistoryEvent) -> None:
        """What means nothing to the business is passed over."""

    @hear.register
    async def _(self, told: api.WorkflowExecutionStartedEventAttributes, event: api.HistoryEvent) -> None:
        request: CaseRequest = await self._opened(told.input.payloads, CaseRequest)
        self._currency = request.currency
        self._add(event, step="case.opened", what=f"{told.workflow_type.name} case opened", detail=words.request(request))

    # Activities ----------------------------------------------------------------------------------------------------

    @hear.register
    async def _(self, told: api.ActivityTaskScheduledEventAttributes, event: api.HistoryEvent) -> None:
        name, detail = told.activity_type.name, ""
        if name == "tell":
            detail = words.told(await self._opened(told.input.payloads, words.Told))
        self._activities[told.activity_id] = len(self.steps)
        self._add(event, step=name, what=words.ACTIVITIES.get(name, name), detail=detail, state=StepState.running)

    @hear.register
    async def _(self, told: api.ActivityTaskStartedEventAttributes, event: api.HistoryEvent) -> None:
        error = await self._failure(told.last_failure) if told.HasField("last_failure") else ""
        self._change(told.scheduled_event_id, attempts=told.attempt, error=error)

    @hear.register
    async def _(self, told: api.ActivityTaskCompletedEventAttributes, event: api.HistoryEvent) -> None:
        name = self.steps[self._begun[told.scheduled_event_id]].step
        self._end(told.scheduled_event_id, event, **await self._result(name, told.result.payloads))

    @hear.register(api.ActivityTaskFailedEventAttributes)
    @hear.register(api.ActivityTaskTimedOutEventAttributes)
    async def _(
        self, told: api.ActivityTaskFailedEventAttributes | api.ActivityTaskTimedOutEventAttributes, event: api.HistoryEvent
    ) -> None:
        error = await self._failure(told.failure)
        self._end(told.scheduled_event_id, event, state=StepState.failed, error=error)

    @hear.register
    async def _(self, told: api.MarkerRecordedEventAttributes, event: api.HistoryEvent) -> None:
        """A local activity: the SDK keeps its type, attempt and result in a marker."""
        if told.marker_name != "core_local_activity":
            return
        about = await self._opened(told.details["data"].payloads, dict)
        name = about["activity_type"]
        changes = await self._result(name, told.details["result"].payloads) if "result" in told.details else {}
        if told.HasField("failure"):
            changes = {"state": StepState.failed, "error": await self._failure(told.failure)}
        self._add(event, step=name, what=words.ACTIVITIES.get(name, name), attempts=about["attempt"], **changes)

    async def pending(self, activity: PendingActivityInfo) -> None:
        """An activity that is under way or will be tried again: its attempts are in the history only once it is over."""
        changes: dict[str, Any] = {"attempts": activity.attempt}
        if activity.HasField("last_failure"):
            changes["error"] = await self._failure(activity.last_failure)
        if activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED:
            changes["state"] = StepState.waiting
            if activity.HasField("next_attempt_schedule_time"):
                changes["until"] = _utc(activity.next_attempt_schedule_time)
        index = self._activities[activity.activity_id]
        self.steps[index] = self.steps[index].model_copy(update=changes)

    # What the outside and people say -------------------------------------------------------------------------------

    @hear.register
    async def _(self, told: api.WorkflowExecutionSignaledEventAttributes, event: api.HistoryEvent) -> None:
        name, payloads = told.signal_name, told.input.payloads
        if name not in EVENT_TYPES:
            self._add(event, step=name, what=f"signal {name}", actor=told.identity)
            return
        fact, data = await self._converter.decode(payloads, [str, EVENT_TYPES[name]])
        source = fact.rpartition("#")[0]
        self._add(event, step=name, what=words.FACTS.get(name, name), detail=words.fact(data), actor=source)

    @hear.register
    async def _(self, told: api.WorkflowExecutionUpdateAcceptedEventAttributes, event: api.HistoryEvent) -> None:
        asked = told.accepted_request.input
        if asked.name not in words.PEOPLE:
            self._add(event, step=asked.name, what=f"update {asked.name}", actor=told.accepted_request.meta.identity)
            return
        word = await self._opened(asked.args.payloads, words.PEOPLE[asked.name])
        what, why = words.person(word)
        self._add(event, step=asked.name, what=what, detail=why, actor=word.by)

    # Waiting -------------------------------------------------------------------------------------------------------

    @hear.register
    async def _(self, told: api.TimerStartedEventAttributes, event: api.HistoryEvent) -> None:
        until = _utc(event.event_time) + told.start_to_fire_timeout.ToTimedelta()
        self._add(event, step="wait", what="waits for news", state=StepState.waiting, until=until)

    @hear.register
    async def _(self, told: api.TimerFiredEventAttributes, event: api.HistoryEvent) -> None:
        self._end(told.started_event_id, event, detail="time was up")

    @hear.register
    async def _(self, told: api.TimerCanceledEventAttributes, event: api.HistoryEvent) -> None:
        self._end(told.started_event_id, event, detail="something came first")

    # The end, and what goes wrong in the engine itself -------------------------------------------------------------

    @hear.register
    async def _(self, told: api.WorkflowExecutionCompletedEventAttributes, event: api.HistoryEvent) -> None:
        view: CaseView = await self._opened(told.result.payloads, CaseView)
        self._close(event, what=f"case {view.outcome}", detail=f"{money.show(view.refunded, self._currency)} refunded")

    @hear.register
    async def _(self, told: api.WorkflowExecutionFailedEventAttributes, event: api.HistoryEvent) -> None:
        self._close(event, what="the workflow failed", state=StepState.failed, error=await self._failure(told.failure))

    @hear.register
    async def _(self, told: api.WorkflowExecutionTerminatedEventAttributes, event: api.HistoryEvent) -> None:
        reason = told.reason or "no reason given"
        self._close(event, what="the workflow was terminated", state=StepState.failed, error=reason, actor=told.identity)

    @hear.register
    async def _(self, told: api.WorkflowTaskFailedEventAttributes, event: api.HistoryEvent) -> None:
        error = await self._failure(told.failure)
        if told.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW:
            self._add(event, step="case.reset", what="reset to here; what follows is new", detail=error, actor=told.identity)
        else:
            self._add(event, step="worker.failed", what="the worker's code failed", state=StepState.failed, error=error)

    @hear.register
    async def _(self, told: api.WorkflowTaskTimedOutEventAttributes, event: api.HistoryEvent) -> None:
        if told.timeout_type == TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE:
            self._add(event, step="worker.lost", what="the worker fell silent; another goes on", state=StepState.failed)

    def pending_task(self, task: PendingWorkflowTaskInfo) -> None:
        """The workflow itself has something to do, and no worker has done it yet."""
        taken = task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED
        what, state = ("a worker is at it", StepState.running) if taken else ("no worker has taken it yet", StepState.waiting)
        at = _utc(task.original_scheduled_time)
        self.steps.append(Step(at=at, step="worker.awaited", what=what, state=state, attempts=task.attempt))

    # Steps and payloads --------------------------------------------------------------------------------------------

    def _add(self, event: api.HistoryEvent, **step: Any) -> None:
        self._begun[event.event_id] = len(self.steps)
        self.steps.append(Step(at=_utc(event.event_time), **step))

    def _change(self, event_id: int, **changes: Any) -> None:
        index = self._begun[event_id]
        self.steps[index] = self.steps[index].model_copy(update=changes)

    def _end(self, event_id: int, event: api.HistoryEvent, **changes: Any) -> None:
        took = (_utc(event.event_time) - self.steps[self._begun[event_id]].at).total_seconds()
        self._change(event_id, **{"state": StepState.done, "duration_seconds": took} | changes)

    def _close(self, event: api.HistoryEvent, **step: Any) -> None:
        """Waits that nobody needed any more end with the case; so does, if it was terminated, what was under way."""
        for begun, index in self._begun.items():
            if (state := self.steps[index].state) in (StepState.waiting, StepState.running):
                ended = StepState.done if state is StepState.waiting else StepState.failed
                self._end(begun, event, state=ended, detail="the case ended first")
        took = (_utc(event.event_time) - self.steps[0].at).total_seconds()
        self._add(event, step="case.closed", duration_seconds=took, **step)

    async def _result(self, name: str, payloads: Sequence[Payload]) -> dict[str, str]:
        if name not in words.RESULTS:
            return {}
        return {"detail": words.result(await self._opened(payloads, words.RESULTS[name]), self._currency)}

    async def _opened(self, payloads: Sequence[Payload], shape: Any) -> Any:
        return (await self._converter.decode(payloads, [shape]))[0]

    async def _failure(self, failure: Failure) -> str:
        """The innermost reason, with our code for it: `DependencyDown: …`."""
        error: BaseException = await self._converter.decode_failure(failure)
        while error.__cause__ and not isinstance(error, ApplicationError):
            error = error.__cause__
        return f"{error.type}: {error.message}" if isinstance(error, ApplicationError) else str(error)


def _utc(at: Timestamp) -> datetime:
    return at.ToDatetime(tzinfo=UTC)
