"""Telling people: one message a (case, template, recipient), each an effect under that key."""

from temporalio import activity

from activities.effects import EffectLog, verb
from adapters.messaging.port import Message, Messenger
from adapters.messaging.render import MessageFacts, render
from db import cases, orders
from db.effects import Intent
from db.models import Case, Order
from db.session import Database
from domain.cases import CaseRequest, Model, Progress
from domain.effects import EffectKind, EffectState, message_key
from domain.errors import NotFound, Rejected
from domain.policy import Policies


class Tell(Model):
    """Tell `recipients` (buyer, merchant) by `template`, then store `progress`: the last message of a case and its end are
    one activity. `about` makes one template tell several things once each; `address` is a person's correction."""

    progress: Progress
    request: CaseRequest
    template: str
    recipients: tuple[str, ...]
    facts: MessageFacts
    about: str = ""
    address: str | None = None


class Notification:
    def __init__(self, db: Database, log: EffectLog, messenger: Messenger, policies: Policies) -> None:
        self._db, self._log, self._messenger, self._policies = db, log, messenger, policies

    @activity.defn(name="tell")
    @verb
    async def tell(self, ask: Tell) -> None:
        """Raises `Rejected` if a message will never be taken; recipients without an address are left out."""
        async with self._db.read() as session:
            case = await cases.find(session, ask.progress.case_id)
            order = await orders.find(session, ask.request.order_key)
        if case is None or order is None:
            raise NotFound(f"case {ask.progress.case_id} is not in the records")
        for recipient in ask.recipients:
            await self._tell(ask, recipient, case, order)
        async with self._db.write() as session:
            await cases.store(session, ask.progress)

    async def _tell(self, ask: Tell, recipient: str, case: Case, order: Order) -> None:
        address, locale = self._whom(ask, recipient, order)
        if self._messenger.needs_address and not address:
            return
        name = f"{ask.template}.{ask.about}" if ask.about else ask.template
        facts = ask.facts.model_copy(update={"case_no": case.case_no})
        subject, text = render(ask.template, locale, facts)
        message = Message(
            key=message_key(case.case_id, name, recipient),
            case_id=case.case_id,
            template=name,
            recipient=recipient,
            address=address,
            locale=locale,
            subject=subject,
            text=text,
        )
        intent = Intent(
            key=message.key, case_id=case.case_id, kind=EffectKind.message, content=f"{name}:{recipient}", provider="messaging"
        )
        row = await self._log.perform(intent, lambda: self._messenger.send(message))
        if row.state is EffectState.declined:
            raise Rejected(f"the {recipient} could not be told {name}: {row.detail}", cause=row.cause)

    def _whom(self, ask: Tell, recipient: str, order: Order) -> tuple[str, str]:
        """(address, locale); nothing of it is ever in a workflow's history but a person's correction."""
        if recipient == "merchant":
            _, policy = self._policies.of(order.merchant, order.channel)
            return policy.merchant_address, policy.merchant_locale
        return ask.address or order.buyer.email, order.buyer.locale
