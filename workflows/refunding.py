"""Moving money back to the buyer, as every process that ends in a refund does it.

Accepted is not paid: `refund` returns when the provider has confirmed every slice. The confirmation comes by the provider's
webhook or by our own lookup, whichever is first, and is booked in the commit that records it.
"""

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.finance import Finance, RefundOrder, SettledByHand, SliceState
    from activities.warehouse import GoodsOfCase
    from domain import money
    from domain.cases import Action, CaseRequest, Claim, Progress, TrackState
    from domain.deadlines import polls
    from domain.effects import DEAD, OPEN, EffectState, news
    from domain.events import RefundFailed, RefundSettled
    from domain.resolution import Resolution
    from domain.settlement import Settlement, amended
    from workflows.calls import innermost
    from workflows.case import CaseProcess
    from workflows.endings import Abandoned


class RefundingProcess(CaseProcess):
    """A process whose case can end in money going back."""

    def __init__(self, request: CaseRequest) -> None:
        super().__init__(request)
        self.slices: dict[str, SliceState] = {}
        self.settled = Settlement(lines=())
        self._reports: list[RefundSettled | RefundFailed] = []
        self._round = 1
        self._first_tender: str | None = None
        self._fixed_amount: int | None = None

    async def refund(self, owed: Settlement) -> None:
        """Move `owed` back over the tenders; when this returns, all of it is confirmed and booked."""
        self.heed_withdrawal()
        self.settled, again = owed, False
        self._new_round()
        while self.settled.amount > self.view.refunded:
            self.money_moves = True
            self.view = self.view.on(money=TrackState.awaiting_settlement)
            problem = await self._submit(again) or await self._confirmed()
            again = await self._resolved(*problem) if problem else False
        if self.view.refunded:
            self.view = self.view.on(money=TrackState.done)

    @property
    def taken(self) -> tuple[Claim, ...]:
        """The lines that were settled; where a person gave the rest up, the part of them that was paid."""
        if self.view.refunded == self.settled.amount:
            return self.settled.lines
        return amended(self.settled, self.view.refunded).lines

    def goods(self, progress: Progress) -> GoodsOfCase:
        return GoodsOfCase(progress=progress, request=self.request, claims=self.case.claims)

    async def undo(self) -> None:
        if self.settled.lines:
            await self._take_grant_back()

    async def _take_grant_back(self) -> None:
        while True:
            progress = self.progress()
            try:
                await self.local(Finance.take_grant_back, progress)
            except Abandoned:
                self.note("undo.refused", "what may have moved cannot be given up")
            else:
                self.sent(progress)
                return

    async def _submit(self, again: bool) -> tuple[str, str] | None:
        """Plan and submit what is not submitted yet; the cause and detail if that did not work."""
        progress = self.progress()
        order = RefundOrder(
            progress=progress,
            request=self.request,
            settlement=self.settled,
            order=self.case.terms.tenders,
            round=self._round,
            first=self._first_tender,
            again=again,
        )
        try:
            self._learn(await self.outside(Finance.refund, order))
        except ActivityError as error:
            self._learn(await self.local(Finance.slices, self.request.case_id))
            code, detail = innermost(error)
            if not any(part.state in OPEN for part in self.slices.values()):
                return {"Conflict": "tenders_exhausted", "Invariant": "unexpected"}.get(code, "provider_down"), detail
        else:
            self.sent(progress)
        return None

    async def _confirmed(self) -> tuple[str, str] | None:
        """Wait until every slice has a final outcome; the cause and detail if one does not get it, or a bad one."""
        terms, since, polled = self.case.terms.payment, workflow.now(), 0
        while open_ := [part for part in self.slices.values() if part.state in OPEN]:
            if differs := self._differing():
                return "amount_differs", differs.detail
            unknown = any(part.state is EffectState.unknown for part in open_)
            ends = since + (terms.unknown_for if unknown else terms.confirm_within)
            if workflow.now() >= ends:
                return ("outcome_unknown" if unknown else "refund_overdue"), ", ".join(part.key for part in open_)
            pause = polls(terms.poll_after, terms.poll_at_most, polled)
            await self.until(lambda: self._all_final() or bool(self._differing()), by=min(workflow.now() + pause, ends))
            if not self._all_final():
                polled += 1
                await self._look_up()
        return self._declined()

    def _declined(self) -> tuple[str, str] | None:
        dead = [part for part in self.slices.values() if part.state in DEAD and part.round == self._round]
        if not dead:
            return None
        self._round += 1  # a proven decline: only now may there be a new key
        cause = "refund_failed" if dead[0].state is EffectState.failed else "refund_declined"
        return cause, f"{dead[0].key}: {dead[0].cause} {dead[0].detail}".strip()

    async def _resolved(self, cause: str, detail: str) -> bool:
        """Park until somebody, or the provider, resolves it. True if a key whose outcome is unknown may be sent again."""
        self.view = self.view.on(money=TrackState.stuck)
        waits = any(part.state in OPEN for part in self.slices.values())
        self.money_moves = waits or self.view.refunded > 0  # else surely nothing moved: the buyer may still withdraw
        resolution = await self.park(
            "refund",
            cause,
            detail,
            unless=lambda: waits and self._all_final(),
            look=self._look_up if waits else None,
            every=self.case.terms.payment.poll_at_most,
        )
        if resolution is None:
            return False
        if resolution.action is Action.settle_by_hand:
            await self._settle_by_hand(resolution)
        elif resolution.amends:
            self._new_round()
            self._first_tender = resolution.tender_id
            if resolution.amount is not None:
                self._fixed_amount = resolution.amount
                self.settled = amended(self.settled, resolution.amount)
                if resolution.amount == self.view.refunded:  # no round follows that would lower the grant
                    await self._take_grant_back()
        return resolution.action is Action.retry and cause == "outcome_unknown"

    async def _settle_by_hand(self, resolution: Resolution) -> None:
        progress = self.progress()
        by_hand = SettledByHand(
            progress=progress,
            request=self.request,
            settlement=self.settled,
            round=self._round,
            voucher=resolution.voucher,
        )
        self._learn(await self.local(Finance.settle_by_hand, by_hand))
        self.sent(progress)

    async def _look_up(self) -> None:
        try:
            self._learn(await self.outside(Finance.look_up_refund, self.request.case_id))
        except ActivityError as error:
            self.note("refund.lookup_failed", innermost(error)[1])

    def _new_round(self) -> None:
        """Keys of their own for what is planned next, if the present ones are in use."""
        if any(part.round == self._round for part in self.slices.values()):
            self._round += 1

    def _all_final(self) -> bool:
        return not any(part.state in OPEN for part in self.slices.values())

    def _differing(self) -> SliceState | None:
        """A slice of which another amount was reported."""
        return next((part for part in self.slices.values() if part.state in OPEN and part.cause == "amount_differs"), None)

    def _learn(self, parts: list[SliceState]) -> None:
        """Take over what the effect log says, unless a report that came meanwhile says more."""
        for part in parts:
            known = self.slices.get(part.key)
            differs = known is not None and known.state in OPEN and part.cause == "amount_differs"
            if known is None or differs or known.state is part.state or news(known.state, part.state):
                self.slices[part.key] = part
        for report in [report for report in self._reports if report.refund_key in self.slices]:
            self._reports.remove(report)
            self._report(report)
        self._count()

    def _report(self, event: RefundSettled | RefundFailed) -> None:
        """The provider's own word on a slice."""
        part = self.slices.get(event.refund_key)
        if part is None:
            self._reports.append(event)
            return
        state = EffectState.succeeded if isinstance(event, RefundSettled) else EffectState.failed
        if part.amount != event.amount:
            detail = f"asked for {part.amount}, the provider reports {event.amount}"
            self.slices[part.key] = part.model_copy(update={"cause": "amount_differs", "detail": detail})
        elif news(part.state, state):
            cause = event.code if isinstance(event, RefundFailed) else ""
            changed = {"state": state, "reference": event.provider_ref, "cause": cause}
            self.slices[part.key] = part.model_copy(update=changed)
        self._count()

    def _count(self) -> None:
        moved = sum(part.amount for part in self.slices.values() if part.state is EffectState.succeeded)
        if moved != self.view.refunded:
            self.note("refund.confirmed", money.show(moved, self.request.currency))
            self.view = self.view.after(refunded=moved)

    @workflow.signal(name="payment.refund_settled")
    def _on_settled(self, fact: str, event: RefundSettled) -> None:
        if self.is_news(fact):
            self._report(event)

    @workflow.signal(name="payment.refund_failed")
    def _on_failed(self, fact: str, event: RefundFailed) -> None:
        if self.is_news(fact):
            self._report(event)
