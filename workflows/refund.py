"""仅退款: money back without goods."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.warehouse import WarehouseDesk
    from domain.cases import CaseRequest, CaseStatus, CaseView, TrackState
    from domain.effects import EffectKind, EffectState
    from domain.settlement import owed_for_claims
    from workflows.endings import to_one_outcome
    from workflows.refunding import RefundingProcess


@workflow.defn(name="refund")
class RefundProcess(RefundingProcess):
    @workflow.init
    def __init__(self, request: CaseRequest) -> None:
        super().__init__(request)

    @workflow.run
    @to_one_outcome
    async def run(self, request: CaseRequest) -> CaseView:
        case = await self.register(request)  # entitlement reserved, decision taken by policy
        if not await self.approved():  # by policy, or by a person before the deadline
            return await self.decline()
        if not case.shipped:
            await self.stop_shipment()  # too late: a person decides
        owed = owed_for_claims(case.claims)
        await self.refund(owed)  # accepted is not paid: returns when the money is confirmed, and booked with that
        return await self.close(CaseStatus.completed, "refund_paid" if self.view.refunded else "nothing_to_refund")

    async def stop_shipment(self) -> None:
        """The goods have not left: have the warehouse keep them."""
        self.view = self.view.on(goods_out=TrackState.awaiting_warehouse)
        stop = await self.ask(WarehouseDesk.stop_shipment, EffectKind.stop_shipment, self.goods)
        left = stop.state is not EffectState.succeeded
        self.view = self.view.on(goods_out=TrackState.done if left else TrackState.stopped)
