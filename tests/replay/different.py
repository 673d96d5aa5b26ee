"""A process that was made to differ on purpose: `test_replay` has to find it. In a file of its own, because the workflow
sandbox loads the file of a workflow anew."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from domain.cases import CaseRequest, CaseView
    from workflows.refund import RefundProcess


@workflow.defn(name="refund")
class DifferentRefund(RefundProcess):
    """One more step before all others."""

    @workflow.init
    def __init__(self, request: CaseRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: CaseRequest) -> CaseView:
        await workflow.execute_activity("think_twice", start_to_close_timeout=timedelta(seconds=1))
        return await super().run(request)
