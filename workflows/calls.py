"""How a process reaches its activities, and what it hears when they fail."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, FailureError

T = TypeVar("T")
Verb = Callable[[Any, Any], Awaitable[T]]
"""An activity: a method of the outside party's class, with one argument."""

ATTEMPT = timedelta(seconds=60)
"""One attempt of a call that leaves the house: longer than its HTTP calls may take together."""
HEARD_WITHIN = timedelta(seconds=10)
"""A worker that is not heard of for so long during a call is taken for dead, and the attempt is made anew."""


async def write(verb: Verb[T], what: object) -> T:
    """A tiny idempotent write to our own tables, as a local activity; tried until the database takes it. One that fails for
    good raises its `ApplicationError` as it is: for local activities there is no `ActivityError` around it."""
    return await workflow.execute_local_activity_method(
        verb,
        args=[what],
        start_to_close_timeout=timedelta(seconds=30),
        retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=10)),
    )


async def call(verb: Verb[T], what: object, *, within: timedelta) -> T:
    """A call that leaves the house, tried for as long as `within`."""
    return await workflow.execute_activity_method(
        verb,
        args=[what],
        start_to_close_timeout=ATTEMPT,
        heartbeat_timeout=HEARD_WITHIN,
        schedule_to_close_timeout=within,
        retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=30)),
    )


def innermost(error: FailureError) -> tuple[str, str]:
    """(our error code, what it says) of the failure behind a failed activity; a timeout has the code `Timeout`."""
    cause: BaseException | None = error
    while isinstance(cause, BaseException) and not isinstance(cause, ApplicationError) and cause.__cause__:
        cause = cause.__cause__
    if isinstance(cause, ApplicationError):
        return cause.type or "Unexpected", cause.message
    return "Timeout", str(cause or error)


def conflict(message: str) -> ApplicationError:
    """What refuses a person's word."""
    return ApplicationError(message, type="Conflict", non_retryable=True)
