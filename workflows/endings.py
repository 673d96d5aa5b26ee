"""The early ends of a case, and the wrapper that gives every process exactly one outcome."""

import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from domain.cases import CaseRequest, CaseStatus, CaseView

if TYPE_CHECKING:
    from workflows.case import CaseProcess

P = TypeVar("P", bound="CaseProcess")
Story = Callable[[P, CaseRequest], Coroutine[Any, Any, CaseView]]


class Withdrawn(BaseException):
    """The buyer took the request back; not an `Exception`, so that no step takes it for a failure of its own."""


class Abandoned(BaseException):
    """A person gave the case up."""


def to_one_outcome(story: Story[P]) -> Story[P]:
    """Ends withdrawn and abandoned cases, and leaves no handler behind on any way out."""

    @functools.wraps(story)
    async def whole(self: P, request: CaseRequest) -> CaseView:
        try:
            view = await story(self, request)
        except Withdrawn:
            await _undo(self)
            view = await self.close(CaseStatus.withdrawn, "withdrawn")
        except Abandoned:
            await _undo(self)
            view = await self.decline() if not self.view.refunded else await self.close(CaseStatus.completed, "refund_paid")
        await self.take_in()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return view

    return whole


async def _undo(case: "CaseProcess") -> None:
    case.ending = True
    try:
        await case.undo()
    except Abandoned:
        case.note("undo.abandoned", "a person gave it up")
