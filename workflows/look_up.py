"""Asking the payment providers about refunds, for people who want to know before they act: nothing is recorded by it."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.finance import Finance, Standing
    from workflows.calls import HEARD_WITHIN


@workflow.defn(name="look_up")
class LookUp:
    @workflow.run
    async def run(self, keys: list[str]) -> list[Standing]:
        """What the providers say of each key now."""
        return await workflow.execute_activity_method(
            Finance.standing,
            args=[keys],
            start_to_close_timeout=timedelta(minutes=5),
            heartbeat_timeout=HEARD_WITHIN,
            retry_policy=RetryPolicy(maximum_attempts=3),
        )
