"""退货退款: the goods come back, then the money goes."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.warehouse import Receipt, WarehouseDesk
    from domain.cases import CaseRequest, CaseStatus, CaseView, Counted, TrackState
    from domain.deadlines import Wait, in_words
    from domain.effects import EffectKind
    from domain.events import ParcelReturning, WarehouseReceived
    from domain.settlement import Settlement, amended, owed_for_goods
    from workflows.endings import to_one_outcome
    from workflows.refunding import RefundingProcess


@workflow.defn(name="return")
class ReturnProcess(RefundingProcess):
    @workflow.init
    def __init__(self, request: CaseRequest) -> None:
        super().__init__(request)
        self.authorized = False
        self.parcels: list[ParcelReturning] = []
        self.receipts: dict[str, WarehouseReceived] = {}
        self._unrecorded: list[WarehouseReceived] = []

    @workflow.run
    @to_one_outcome
    async def run(self, request: CaseRequest) -> CaseView:
        await self.register(request)  # entitlement reserved, decision taken by policy
        if not await self.approved():  # by policy, or by a person before the deadline
            return await self.decline()
        if not self.case.claims:  # a person approved it, but other cases have it all
            return await self.close(CaseStatus.completed, "nothing_to_refund")
        await self.authorize_return()  # RMA to the warehouse, address to the buyer
        if not await self.parcel_on_its_way():  # reminder, then expiry
            return await self.expire()
        await self.goods_received()  # one parcel or several; chased when late
        while self.settled != (owed := self.owed()):  # on accepted units by grade, and again if a receipt is corrected
            await self.refund(owed)  # accepted is not paid: returns when the money is confirmed, and booked with that
            if self.view.refunded > owed.amount:
                await self.overpaid(owed)
        return await self.close(CaseStatus.completed, "refund_paid" if self.view.refunded else "nothing_to_refund")

    async def authorize_return(self) -> None:
        self.view = self.view.on(goods_in=TrackState.awaiting_customer)
        self.authorized = True
        rma = await self.ask(WarehouseDesk.expect_return, EffectKind.rma, self.goods)
        deadline = in_words(workflow.now() + self.case.terms.parcel.within)
        await self.tell("return_address", address=rma.detail, deadline=deadline)

    async def parcel_on_its_way(self) -> bool:
        """Until the buyer sends the goods, or the warehouse has them; False when the time for it is over."""
        terms = self.case.terms.parcel
        wait = Wait(since=workflow.now(), within=terms.within, remind_after=terms.remind_after, reminder="parcel_reminder")
        return await self.wait_for(wait, lambda: bool(self.parcels or self.receipts))

    async def expire(self) -> CaseView:
        await self.undo()
        return await self.close(CaseStatus.expired, "expired")

    async def goods_received(self) -> None:
        """Until all units are counted, or the warehouse says that no more will come."""
        terms = self.case.terms.receipt
        self.view = self.view.on(goods_in=TrackState.awaiting_warehouse)
        while True:
            wait = Wait(since=workflow.now(), within=terms.within, remind_after=terms.chase_after, reminder="goods_chase")
            await self.wait_for(wait, lambda: self._complete() or self._no_more())
            if self._complete() or (self.receipts and terms.on_short == "settle"):
                break
            cause = "goods_short" if self.receipts else "goods_overdue"
            detail = f"{self._units()} of {sum(claim.quantity for claim in self.case.claims)} units received"
            known = set(self.receipts)
            resolution = await self.park("receive", cause, detail, unless=lambda: set(self.receipts) > known)  # noqa: B023
            if resolution and resolution.amends:
                self._fixed_amount = resolution.amount
                break
        self.view = self.view.on(goods_in=TrackState.done)

    async def overpaid(self, owed: Settlement) -> None:
        """Goods were counted down after the money had left: it is never taken back silently."""
        detail = f"refunded {self.view.refunded}, by the corrected receipt {owed.amount} was owed"
        await self.park("receive", "goods_corrected", detail)
        self._fixed_amount = self.view.refunded

    def owed(self) -> Settlement:
        """What the counted units are worth by grade, or what a person said."""
        owed = owed_for_goods(self.case.claims, self.counted, self.case.terms.grades, self.case.terms.fee)
        if self._fixed_amount is None:
            return owed
        return amended(owed if owed.gross else Settlement(lines=self.case.claims), self._fixed_amount)

    @property
    def counted(self) -> list[Counted]:
        """All units that count: a corrected receipt counts no more."""
        corrected = {receipt.corrects for receipt in self.receipts.values()}
        return [
            Counted(line_id=line.line_id, quantity=line.quantity, grade=line.grade)
            for receipt in self.receipts.values()
            if receipt.receipt_id not in corrected
            for line in receipt.lines
        ]

    def _units(self) -> int:
        ours = {claim.line_id for claim in self.case.claims}
        return sum(item.quantity for item in self.counted if item.line_id in ours)

    def _complete(self) -> bool:
        return all(
            sum(item.quantity for item in self.counted if item.line_id == claim.line_id) >= claim.quantity
            for claim in self.case.claims
        )

    def _no_more(self) -> bool:
        return any(receipt.final for receipt in self.receipts.values())

    async def undo(self) -> None:
        await super().undo()
        if self.authorized and not self.receipts:
            await self.ask(WarehouseDesk.cancel_return, EffectKind.cancel_rma, lambda progress: progress)

    @property
    def told_something(self) -> bool:
        return super().told_something or bool(self._unrecorded)

    async def take_in(self) -> None:
        """Counted goods are recorded, and booked, as they come."""
        while self._unrecorded:
            progress = self.progress()
            receipt = Receipt(
                progress=progress,
                request=self.request,
                received=self._unrecorded[0],
                grades=self.case.terms.grades,
                cost_percent=self.case.terms.cost_percent,
            )
            await self.local(WarehouseDesk.record_receipt, receipt)
            self.sent(progress)
            self._unrecorded.pop(0)

    @workflow.signal(name="parcel.returning")
    def _on_parcel(self, fact: str, event: ParcelReturning) -> None:
        if self.is_news(fact):
            self.parcels.append(event)
            self.note("parcel.returning", event.waybill)

    @workflow.signal(name="warehouse.received")
    def _on_received(self, fact: str, event: WarehouseReceived) -> None:
        if self.is_news(fact) and event.receipt_id not in self.receipts:
            self.receipts[event.receipt_id] = event
            self._unrecorded.append(event)
            counted = ", ".join(f"{line.quantity} × {line.line_id} {line.grade}" for line in event.lines)
            self.note("warehouse.received", f"{event.receipt_id}: {counted}")
