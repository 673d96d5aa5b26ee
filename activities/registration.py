"""Registering a case: its entitlement reserved, its decision taken by policy; and keeping its projection."""

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.effects import verb
from db import cases, effects, orders
from db.models import Case
from db.session import Database
from domain.cases import CaseRequest, Claim, Model, Progress
from domain.effects import OPEN, EffectKind, EffectState
from domain.entitlement import entitled
from domain.errors import NotFound
from domain.policy import Decision, Inputs, Policies, Policy, Terms, Verdict, decide, terms


class Registered(Model):
    """What a case knows of itself once registered. `claims` is what it can get; `shipped` tells whether the goods left.
    `money_moved` is true only of a case that was reset: some of its refund has left already, or may have."""

    decision: Decision
    claims: tuple[Claim, ...]
    terms: Terms
    shipped: bool
    money_moved: bool = False


class Decided(Model):
    progress: Progress
    decision: Decision


class StepByHand(Model):
    progress: Progress
    kind: EffectKind
    voucher: str


class Registration:
    def __init__(self, db: Database, policies: Policies) -> None:
        self._db, self._policies = db, policies

    @activity.defn(name="register")
    @verb
    async def register(self, request: CaseRequest) -> Registered:
        """Reserve what the request claims, beside all other cases on the order, and decide by the merchant's policy.
        A second call answers the first decision."""
        name, policy = self._policies.of(request.merchant, request.channel)
        async with self._db.write() as session:
            order = await orders.find(session, request.order_key, lock=True)
            case = await cases.find(session, request.case_id)
            if order is None or case is None:
                raise NotFound(f"case {request.case_id} or its order {request.order_key} is not in the records")
            if case.decision is None:
                claims = await self._claims(session, request)
                since = case.opened_at - policy.abuse.within if policy.abuse else case.opened_at
                count, amount = await cases.asked_by(
                    session, request.merchant, order.buyer_id, since, case.opened_at, besides=request.case_id
                )
                inputs = Inputs(
                    kind=request.kind,
                    reason=request.reason,
                    currency=request.currency,
                    requested=case.requested,
                    approved=sum(claim.amount for claim in claims),
                    requested_at=request.requested_at,
                    delivered_at=order.delivered_at,
                    nothing_left=len(claims) < len(request.lines),
                    buyer_requests=count + 1,
                    buyer_amount=amount + case.requested,
                )
                case.decision = decide(policy, name, inputs)
                if case.decision.verdict is not Verdict.decline:
                    await cases.reserve(session, request, claims)
            return await self._registered(session, request, policy, case, shipped=order.shipped_at is not None)

    @activity.defn(name="record_decision")
    @verb
    async def record_decision(self, decided: Decided) -> None:
        """Store a person's decision beside the state that it led to."""
        async with self._db.write() as session:
            case = await cases.find(session, decided.progress.case_id)
            if case is None:
                raise NotFound(f"there is no case {decided.progress.case_id}")
            case.decision = decided.decision
            await session.flush()
            await cases.store(session, decided.progress)

    @activity.defn(name="settle_step_by_hand")
    @verb
    async def settle_step_by_hand(self, step: StepByHand) -> None:
        """Conclude the effects of a step that a person saw to another way."""
        async with self._db.write() as session:
            await effects.settle_by_hand(session, step.progress.case_id, step.kind, f"voucher:{step.voucher}", step.progress.at)
            await cases.store(session, step.progress)

    @activity.defn(name="store")
    @verb
    async def store(self, progress: Progress) -> None:
        """Store a case's state and news where no other activity carries them."""
        async with self._db.write() as session:
            await cases.store(session, progress)

    async def _claims(self, session: AsyncSession, request: CaseRequest) -> list[Claim]:
        """What the request can have: lines whose units are not there any more are left out."""
        lines = {line.line_id: line for line in await orders.lines(session, request.order_key)}
        others = await cases.claims_on(session, request.order_key, besides=request.case_id)
        found = [entitled(lines[claim.line_id], claim, others.get(claim.line_id, ())) for claim in request.lines]
        return [claim for claim in found if claim]

    async def _registered(
        self, session: AsyncSession, request: CaseRequest, policy: Policy, case: Case, *, shipped: bool
    ) -> Registered:
        assert case.decision is not None
        rows = await cases.claims_of(session, request.case_id)
        claims = tuple(Claim(line_id=row.line_id, quantity=row.quantity, amount=row.amount) for row in rows)
        fixed = terms(policy, request.kind, request.reason, request.currency)
        refunds = await effects.of_case(session, request.case_id, EffectKind.refund)
        moved = any(row.state in OPEN or row.state is EffectState.succeeded for row in refunds)
        return Registered(decision=case.decision, claims=claims, terms=fixed, shipped=shipped, money_moved=moved)
