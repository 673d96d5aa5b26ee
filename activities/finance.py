"""Moving money back over an order's tenders, a slice a tender, and keeping the books of it.

What a tender can still take back is shared by all cases of an order, so the split is made where the caps are known: under
the order's lock, in one commit with the slices' intents (which count against the caps from then on) and with the grant.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.effects import EffectLog, verb
from adapters.payments.port import PaymentProvider, Refund
from db import cases, effects, ledger, orders
from db.effects import RefundIntent
from db.models import EffectRow, Tender
from db.session import Database
from domain.cases import CaseRequest, Model, Progress
from domain.effects import DEAD, LIVE, OPEN, EffectKind, EffectState, Outcome, refund_key
from domain.errors import Conflict, Invariant
from domain.ledger import Account, grant
from domain.settlement import Settlement, TenderLeft, TenderOrder, over_tenders


class RefundOrder(Model):
    """Pay `settlement` to the buyer. A new `round` is begun only when slices of the last one surely did not move;
    `first` names a tender that a person wants used first; `again` is a person's word that a key whose outcome is unknown
    may be sent once more."""

    progress: Progress
    request: CaseRequest
    settlement: Settlement
    order: TenderOrder
    round: int
    first: str | None = None
    again: bool = False


class SettledByHand(Model):
    """A person paid what is still owed another way, and has a voucher for it."""

    progress: Progress
    request: CaseRequest
    settlement: Settlement
    round: int
    voucher: str


class SliceState(Model):
    """A slice of a case's refund as the effect log has it; amounts in minor units."""

    key: str
    tender_id: str
    round: int
    amount: int
    state: EffectState
    reference: str = ""
    cause: str = ""
    detail: str = ""


class Standing(Model):
    """What a provider says of a key now: `not_found` is a cause, not an error."""

    key: str
    outcome: Outcome


class Finance:
    """`providers` by the name that a tender gives its provider."""

    def __init__(self, db: Database, log: EffectLog, providers: Mapping[str, PaymentProvider]) -> None:
        self._db, self._log, self._providers = db, log, providers

    @activity.defn(name="refund")
    @verb
    async def refund(self, ask: RefundOrder) -> list[SliceState]:
        """Plan what is still owed over the tenders, grant it, and submit every slice that was not submitted. Answers all
        slices of the case. Raises `Conflict` when the tenders cannot take that much back."""
        async with self._db.write() as session:
            slices, tenders = await self._plan(session, ask)
            await cases.store(session, ask.progress)
        for intent in slices:
            call = self._refund(intent, tenders)
            provider = self._provider(tenders[intent.tender_id])
            submit, look_up = partial(provider.submit, call), partial(provider.look_up, call)
            await self._log.perform_once(intent, submit, look_up, again=ask.again)
        return await self.slices(ask.request.case_id)

    @activity.defn(name="look_up_refund")
    @verb
    async def look_up_refund(self, case_id: str) -> list[SliceState]:
        """Ask the providers about every slice that we wait for."""
        async with self._db.read() as session:
            rows = [row for row in await effects.of_case(session, case_id, EffectKind.refund) if row.state in OPEN]
            tenders = await orders.tenders(session, rows[0].order_key or "") if rows else {}
        for row in rows:
            intent = RefundIntent.model_validate(row, from_attributes=True)
            provider, call = self._provider(tenders[intent.tender_id]), self._refund(intent, tenders)
            await self._log.look_up(row.key, partial(provider.look_up, call))
        return await self.slices(case_id)

    @activity.defn(name="refund_standing")
    @verb
    async def slices(self, case_id: str) -> list[SliceState]:
        """All slices of a case as the effect log has them."""
        async with self._db.read() as session:
            rows = await effects.of_case(session, case_id, EffectKind.refund)
        return [SliceState.model_validate(row, from_attributes=True) for row in rows]

    @activity.defn(name="refund_standing_at_provider")
    @verb
    async def standing(self, keys: list[str]) -> list[Standing]:
        """What the providers say of these refunds now; nothing is recorded."""
        async with self._db.read() as session:
            rows = await effects.by_key(session, keys)
            tenders = {row.order_key: await orders.tenders(session, row.order_key or "") for row in rows}
        several = asyncio.Semaphore(8)

        async def one(row: EffectRow) -> Standing:
            intent = RefundIntent.model_validate(row, from_attributes=True)
            found = tenders[row.order_key]
            if intent.tender_id not in found:
                return Standing(key=row.key, outcome=Outcome(state=row.state, reference=row.reference, cause="by_hand"))
            look_up = partial(self._provider(found[intent.tender_id]).look_up, self._refund(intent, found))
            async with several:
                return Standing(key=row.key, outcome=await self._log.looked_up(look_up))

        return list(await asyncio.gather(*(one(row) for row in rows)))

    @activity.defn(name="settle_by_hand")
    @verb
    async def settle_by_hand(self, ask: SettledByHand) -> list[SliceState]:
        """Book what is still owed as paid by voucher. Slices whose outcome is unknown are concluded by it; the rest is
        granted and booked under a key of its own."""
        case_id, at = ask.request.case_id, ask.progress.at
        paid = Outcome(state=EffectState.succeeded, reference=f"voucher:{ask.voucher}")
        async with self._db.write() as session:
            rows = await effects.of_case(session, case_id, EffectKind.refund)
            for row in rows:
                if row.state in OPEN or row.state is EffectState.planned:
                    await effects.conclude(session, row.key, paid, at, by_hand=True)
            await session.flush()
            owed = ask.settlement.amount - sum(row.amount or 0 for row in rows if row.state in LIVE)
            if owed > 0:
                await self._grant(session, ask.request, ask.settlement, ask.round, at)
                intent = _intent(ask.request, "by-hand", ask.round, owed, "voucher")
                await effects.plan(session, intent, at)
                await session.flush()
                await effects.conclude(session, intent.key, paid, at, by_hand=True)
            await session.flush()
            await cases.store(session, ask.progress)
        return await self.slices(case_id)

    @activity.defn(name="take_grant_back")
    @verb
    async def take_grant_back(self, progress: Progress) -> None:
        """The case ends without paying all that was granted: what surely did not move is not owed any more."""
        async with self._db.write() as session:
            rows = await effects.of_case(session, progress.case_id, EffectKind.refund)
            open_ = [row.key for row in rows if row.state in OPEN]
            if open_:
                raise Conflict(f"what happened to {', '.join(open_)} is not known yet: it cannot be given up")
            for row in rows:
                if row.state is EffectState.planned:
                    await effects.conclude(
                        session, row.key, Outcome(state=EffectState.declined, cause="abandoned"), progress.at
                    )
            if rows:
                await self._take_back(session, rows, progress)
            await session.flush()
            await cases.store(session, progress)

    async def _take_back(self, session: AsyncSession, rows: Sequence[EffectRow], progress: Progress) -> None:
        """What was granted and not paid; the fee too if nothing was paid."""
        case_id, currency = progress.case_id, rows[0].currency or ""
        owed, fee = -await ledger.held(session, Account.refunds_payable, case_id), 0
        if not any(row.state is EffectState.succeeded for row in rows):
            fee = -await ledger.held(session, Account.return_fees, case_id)
        entry = grant(case_id, 0, progress.at, currency, gross=-owed - fee, fee=-fee)
        await ledger.post(session, [entry])

    async def _plan(self, session: AsyncSession, ask: RefundOrder) -> tuple[list[RefundIntent], dict[str, Tender]]:
        """The slices to perform: those of this round, planned now unless an earlier attempt did."""
        await orders.find(session, ask.request.order_key, lock=True)
        tenders = await orders.tenders(session, ask.request.order_key)
        rows = await effects.of_case(session, ask.request.case_id, EffectKind.refund)
        if not any(row.round == ask.round for row in rows):
            for row in rows:
                if row.state is EffectState.planned:  # of an earlier round, surely never called
                    row.state, row.cause = EffectState.declined, "planned_anew"
            await session.flush()
            owed = ask.settlement.amount - sum(row.amount or 0 for row in rows if row.state in LIVE)
            rows = [*rows, *await self._new_round(session, ask, owed, tenders)]
        open_rows = [row for row in rows if row.state not in DEAD]
        return [
            RefundIntent.model_validate(row, from_attributes=True) for row in open_rows if row.tender_id in tenders
        ], tenders

    async def _new_round(
        self, session: AsyncSession, ask: RefundOrder, owed: int, tenders: Mapping[str, Tender]
    ) -> list[EffectRow]:
        if owed < 0:
            raise Invariant(f"{-owed} more than owed is moved or moving already")
        at, left = ask.progress.at, await orders.tenders_left(session, ask.request.order_key)
        parts = _wanted_first(owed, left, ask.first, ask.order)
        await self._grant(session, ask.request, ask.settlement, ask.round, at)
        planned = []
        for tender_id, amount in parts.items():
            intent = _intent(ask.request, tender_id, ask.round, amount, tenders[tender_id].provider)
            planned.append(await effects.plan(session, intent, at))
        await session.flush()
        return planned

    async def _grant(self, session: AsyncSession, request: CaseRequest, owed: Settlement, round_: int, at: datetime) -> None:
        """Bring what is granted to what is owed: the whole at first, the difference when it was amended."""
        gross = await ledger.held(session, Account.sales_returns, request.case_id)
        fee = -await ledger.held(session, Account.return_fees, request.case_id)
        entry = grant(request.case_id, round_, at, request.currency, gross=owed.gross - gross, fee=owed.fee - fee)
        await ledger.post(session, [entry])

    def _provider(self, tender: Tender) -> PaymentProvider:
        provider = self._providers.get(tender.provider)
        if provider is None:
            raise Invariant(f"there is no payment provider {tender.provider!r} in the settings")
        return provider

    @staticmethod
    def _refund(intent: RefundIntent, tenders: Mapping[str, Tender]) -> Refund:
        tender = tenders[intent.tender_id]
        return Refund(
            key=intent.key,
            payment_ref=tender.payment_ref,
            captured=tender.amount,
            amount=intent.amount,
            currency=intent.currency,
        )


def _wanted_first(owed: int, left: Sequence[TenderLeft], first: str | None, order: TenderOrder) -> dict[str, int]:
    """The slices by tender; the tender that a person wants first takes what it can, the rest follows the policy."""
    chosen = [tender for tender in left if tender.tender_id == first]
    before = min(owed, sum(tender.left for tender in chosen))
    parts = {chosen[0].tender_id: before} if before else {}
    others = [tender for tender in left if tender.tender_id != first]
    return parts | {part.tender_id: part.amount for part in over_tenders(owed - before, others, order)}


def _intent(request: CaseRequest, tender_id: str, round_: int, amount: int, provider: str) -> RefundIntent:
    return RefundIntent(
        key=refund_key(request.case_id, tender_id, round_),
        case_id=request.case_id,
        kind=EffectKind.refund,
        content=json.dumps({"tender": tender_id, "amount": amount, "currency": request.currency}),
        provider=provider,
        order_key=request.order_key,
        tender_id=tender_id,
        round=round_,
        amount=amount,
        currency=request.currency,
    )
