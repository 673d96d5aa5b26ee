"""The floor under a refund: what Temporal itself takes for a workflow of the same shape whose activities do nothing.

    python -m benchmarks.floor     its worker, with the options of ours; writes a workflow's id to standard output when the
                                   workflow has submitted, and expects `SIGNAL` some time after that

Shape: one local activity, one normal activity, a timer beside the wait for one signal, another normal activity, and an
upsert of the search attributes in the last task: the straight path of `workflows/refund.py`.
"""

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

with workflow.unsafe.imports_passed_through():
    from engine import attributes
    from engine.client import connect, runtime
    from settings import load
    from worker import GRACE, runner

TASK_QUEUE = "floor"
SIGNAL = "settled"

_WITHIN = timedelta(seconds=60)
_RETRY = RetryPolicy(maximum_interval=timedelta(seconds=30))


@activity.defn
async def register(case_id: str) -> None:
    """Stands for the reservation and the decision."""


@activity.defn
async def submit(case_id: str) -> None:
    """Stands for the call to the provider."""
    print(case_id, flush=True)


@activity.defn
async def tell(case_id: str) -> None:
    """Stands for the message to the buyer and the end of the case."""


@workflow.defn(name="floor")
class Floor:
    def __init__(self) -> None:
        self._settled = False

    @workflow.run
    async def run(self, case_id: str) -> None:
        await workflow.execute_local_activity(register, case_id, start_to_close_timeout=_WITHIN, retry_policy=_RETRY)
        await workflow.execute_activity(submit, case_id, start_to_close_timeout=_WITHIN, retry_policy=_RETRY)
        clock = asyncio.create_task(asyncio.sleep(60))
        await workflow.wait_condition(lambda: self._settled or clock.done())
        await workflow.execute_activity(tell, case_id, start_to_close_timeout=_WITHIN, retry_policy=_RETRY)
        status = attributes.CASE_STATUS.value_set("completed")
        workflow.upsert_search_attributes([status, attributes.ATTENTION.value_unset(), attributes.DEADLINE.value_unset()])

    @workflow.signal(name=SIGNAL)
    def _on_settled(self, fact: str) -> None:
        self._settled = True


async def main() -> None:
    stop, settings = asyncio.Event(), load()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = await connect(settings, runtime=runtime(settings))
    await attributes.register(client)
    async with Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[Floor],
        activities=[register, submit, tell],
        workflow_runner=SandboxedWorkflowRunner(restrictions=runner().restrictions.with_passthrough_modules("benchmarks")),
        workflow_task_executor=ThreadPoolExecutor(max_workers=4),
        graceful_shutdown_timeout=GRACE,
        max_cached_workflows=1_000,
        max_concurrent_activities=50,
    ):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
