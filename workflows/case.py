"""What all case processes share: register, be decided, tell, wait, park, close.

A process file tells its story by these verbs. What the outside says arrives by signal (facts, never refused), what people
decide by update (refused with a reason); both only change fields here, and wake the story up where it waits.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

with workflow.unsafe.imports_passed_through():
    from activities.notification import Notification, Tell
    from activities.registration import Decided, Registered, Registration, StepByHand
    from adapters.messaging.render import MessageFacts
    from domain import money
    from domain.attention import CAUSES
    from domain.cases import Action, Attention, CaseRequest, CaseStatus, CaseView, Claim, Note, Progress, TrackState
    from domain.deadlines import Wait, in_words
    from domain.effects import EffectKind, EffectState, Outcome
    from domain.events import AftersaleWithdrawn, DeadlineChanged
    from domain.policy import Verdict
    from domain.resolution import Judgement, Resolution
    from engine import attributes
    from workflows.calls import Verb, call, conflict, innermost, write
    from workflows.clock import Clock
    from workflows.endings import Abandoned, Withdrawn

T = TypeVar("T")

_MENTION = timedelta(minutes=1)
"""How long a message on the way is tried; the one that ends a case is tried as long as money is."""

_SOON = frozenset({CaseStatus.open, CaseStatus.awaiting_settlement})
"""Statuses that pass by themselves: publishing them would cost an event and tell nobody anything."""


class CaseProcess:
    """The state of a running case and the verbs of its story."""

    def __init__(self, request: CaseRequest) -> None:
        self.request = request
        self.view = CaseView(case_id=request.case_id)
        self.case: Registered
        self.clock = Clock()
        self.withdrawn = self.money_moves = self.ending = self._registered = False
        self._platform_deadline = request.deadline
        self._judgement: Judgement | None = None
        self._resolution: Resolution | None = None
        self._buyer_address: str | None = None
        self._facts: set[str] = set()
        self._notes: list[Note] = []
        self._noted = self._stored = 0
        self._published = CaseStatus.open
        self._published_deadline = request.deadline

    @property
    def view(self) -> CaseView:
        return self._view

    @view.setter
    def view(self, view: CaseView) -> None:
        # Revisions and notes are numbered by the clock: what is told after a reset is newer than what it takes back.
        self._view = view.model_copy(update={"revision": max(view.revision, _clock())})

    # The verbs of a story ------------------------------------------------------------------------------------------

    async def register(self, request: CaseRequest) -> Registered:
        """Entitlement reserved, decision taken by policy; both are in the history from here on."""
        self.case = await self.local(Registration.register, request)
        self._registered, self.money_moves = True, self.case.money_moved
        decision = self.case.decision
        self.note("case.registered", f"{decision.verdict} by {decision.policy} {decision.version}: {decision.rule}")
        return self.case

    async def approved(self) -> bool:
        """By policy, or by a person before the deadline; at the deadline by what the policy says about that."""
        verdict = self.case.decision.verdict
        if verdict is Verdict.review:
            verdict = await self._reviewed()
        self._platform_deadline = None  # it was for deciding
        if verdict is Verdict.approve:
            self.view = self.view.after(approved=sum(claim.amount for claim in self.case.claims))
        return verdict is Verdict.approve

    async def decline(self) -> CaseView:
        return await self.close(CaseStatus.declined, "declined")

    @property
    def taken(self) -> tuple[Claim, ...]:
        """What a completed case took of the order's entitlement for good."""
        return ()

    async def close(self, outcome: CaseStatus, template: str) -> CaseView:
        """Tell how it ended, and end: the last message and the end of the case are one activity."""
        self.ending = True
        taken = self.taken if outcome is CaseStatus.completed else ()
        self.note(f"case.{outcome}", f"told by {template}")
        self.view = self.view.after(attention=None, in_review=False)
        unfinished = {name for name, state in self.view.tracks if state not in (TrackState.none, TrackState.done)}
        tracks = dict.fromkeys(unfinished, TrackState.stopped) | {"messages": TrackState.done}

        def ended() -> CaseView:
            return self.view.on(**tracks).after(outcome=outcome, deadline=None, taken=taken)

        await self.tell(template, ending=ended)
        self.view = ended()
        self._publish()
        return self.view

    async def undo(self) -> None:
        """What a process takes back when its case ends early; one that did nothing yet has nothing to."""

    async def tell(self, template: str, *, ending: Callable[[], CaseView] | None = None, **facts: str) -> None:
        """Tell those whom the policy names for `template`. A message that cannot be delivered parks the case."""
        recipients = self._told(template)
        while True:
            try:
                return await self._tell(template, recipients, ending=ending, facts=facts)
            except ActivityError as error:
                detail = innermost(error)[1]
            try:
                resolution = await self.park("tell", "message_undeliverable", detail)
            except Abandoned:  # gives the message up, not the case
                recipients = ()
                continue
            if resolution and resolution.action is Action.settle_by_hand:
                await self._seen_to(EffectKind.message, resolution)
                recipients = ()

    async def mention(self, template: str, about: str = "", **facts: str) -> None:
        """Tell people something on the way; if it cannot be delivered, that is noted and the case goes on."""
        recipients = self._told(template)
        if not recipients:
            return
        try:
            await self._tell(template, recipients, about=about, facts=facts)
        except ActivityError as error:
            self.note("message.undelivered", f"{template}: {innermost(error)[1]}")

    async def ask(self, verb: Verb[Outcome], kind: EffectKind, about: Callable[[Progress], object]) -> Outcome:
        """Have an outside party do something, until it does or a person says how else to go on; *declined* where they
        waived it."""
        while True:
            progress = self.progress()
            try:
                outcome = await self.outside(verb, about(progress))
                self.sent(progress)
                if outcome.state is EffectState.succeeded:
                    return outcome
                cause = "shipment_not_stopped" if kind is EffectKind.stop_shipment else "warehouse_refused"
                detail = outcome.detail or outcome.cause
            except ActivityError as error:
                cause, detail = "warehouse_down", innermost(error)[1]
            resolution = await self.park(kind, cause, detail)
            if resolution and resolution.action is Action.settle_by_hand:
                await self._seen_to(kind, resolution)
                return Outcome(state=EffectState.succeeded, reference=resolution.voucher)
            if resolution and resolution.waive:
                return Outcome(state=EffectState.declined, cause="waived")

    async def park(
        self,
        step: str,
        cause: str,
        detail: str,
        *,
        unless: Callable[[], bool] = lambda: False,
        look: Callable[[], Awaitable[None]] | None = None,
        every: timedelta = timedelta.max,
    ) -> Resolution | None:
        """The case cannot go on by itself: say so, and wait for a person, or until the world resolves it (`unless`; then
        None), which we `look` at now and then. Raises `Abandoned` when the person gives it up."""
        actions = CAUSES[cause].actions
        attention = Attention(step=step, cause=cause, detail=detail[:500], since=workflow.now(), actions=actions)
        self.view = self.view.after(attention=attention)
        self.note(f"attention.{cause}", detail)
        self._resolution = None
        await self.store()
        if cause != "message_undeliverable":
            await self.mention("attention", about=cause, reason=f"{CAUSES[cause].zh} ({CAUSES[cause].en})")

        def over() -> bool:
            return self._resolution is not None or unless()

        while not over():
            await self.until(over, by=workflow.now() + every if look else None)
            if look and not over():
                await look()
        resolution, self._resolution = self._resolution, None
        self.view = self.view.after(attention=None)
        if resolution is None:
            self.note("attention.cleared", "resolved without a person")
        elif resolution.action is Action.abandon:
            raise Abandoned
        else:
            self._buyer_address = resolution.recipient or self._buyer_address
        return resolution

    # Waiting -------------------------------------------------------------------------------------------------------

    async def wait_for(self, wait: Wait, ready: Callable[[], bool]) -> bool:
        """True once `ready`, False when the wait expires. On the way people are reminded and alarmed; a deadline that
        the platform moves moves the end and the alarm."""
        told: frozenset[str] = frozenset()
        while not ready():
            wait = wait.model_copy(update={"platform": self._platform_deadline})
            if self.view.deadline != wait.expires_at:
                self.view = self.view.after(deadline=wait.expires_at)
            due = [mark.template for mark in wait.marks if mark.at <= workflow.now() and mark.template not in told]
            for template in due:
                self.note("deadline.mark", template)
                await self.mention(template)
            told |= set(due)
            if not due and wait.expires_at <= workflow.now():
                break
            moved = self._platform_deadline
            await self.until(lambda: ready() or self._platform_deadline != moved, by=wait.next_moment(told))  # noqa: B023
        self._platform_deadline = None
        self.view = self.view.after(deadline=None)
        return ready()

    async def until(self, ready: Callable[[], bool], *, by: datetime | None = None) -> None:
        """Wait for `ready`, at the longest until `by`. Raises `Withdrawn` when the buyer takes the request back, unless
        money is moving already."""
        if by:
            self.clock.set(by)
        while True:
            await self.take_in()
            if self.view.revision > self._stored and {self.view.status, self._published} - _SOON:
                await self.store()
            self.heed_withdrawal()
            if ready() or (by and self.clock.rang):
                return
            await workflow.wait_condition(lambda: ready() or self.told_something or bool(by and self.clock.rang))

    @property
    def told_something(self) -> bool:
        """Whether there is news that `until` must act on besides what it waits for."""
        return self.withdrawn and not self.too_late

    @property
    def too_late(self) -> bool:
        """Whether the buyer can no longer take the request back."""
        return self.money_moves or self.ending

    def heed_withdrawal(self) -> None:
        if self.withdrawn and not self.too_late:
            raise Withdrawn

    async def take_in(self) -> None:
        """Act on facts as they come, wherever the case waits; a process that has such facts says how."""

    async def _reviewed(self) -> Verdict:
        terms = self.case.terms.review
        self.view = self.view.after(in_review=True)
        while True:
            wait = Wait(since=workflow.now(), within=terms.within, alarm_before=terms.alarm_before, alarm="deadline_near")
            if not await self.wait_for(wait, lambda: self._judgement is not None):
                if terms.on_expiry == "approve":
                    verdict, by, reason = Verdict.approve, "policy", "nobody decided before the deadline"
                    break
                await self.park("decide", "review_overdue", "", unless=lambda: self._judgement is not None)
            if judgement := self._judgement:
                verdict, by, reason = judgement.verdict, judgement.by, judgement.reason
                break
        decision = self.case.decision.model_copy(update={"verdict": verdict, "by": by, "reason": reason})
        self.case = self.case.model_copy(update={"decision": decision})
        self.view = self.view.after(in_review=False)
        progress = self.progress()
        await self.local(Registration.record_decision, Decided(progress=progress, decision=decision))
        self.sent(progress)
        return verdict

    # What the outside and people say -------------------------------------------------------------------------------

    @workflow.signal(name="aftersale.withdrawn")
    def _on_withdrawn(self, fact: str, event: AftersaleWithdrawn) -> None:
        if self.is_news(fact):
            self.withdrawn = True
            self.note("buyer.withdrew", "too late" if self.too_late else "")

    @workflow.signal(name="aftersale.deadline_changed")
    def _on_deadline(self, fact: str, event: DeadlineChanged) -> None:
        if self.is_news(fact):
            self._platform_deadline = event.deadline
            self.note("deadline.moved", in_words(event.deadline))

    @workflow.update(name="decide")
    def _on_decide(self, judgement: Judgement) -> CaseView:
        self._judgement = judgement
        self.note(f"person.{judgement.verdict}", judgement.reason, actor=judgement.by)
        return self.view

    @_on_decide.validator
    def _may_decide(self, judgement: Judgement) -> None:
        if self._judgement:
            raise conflict(f"decided already: {self._judgement.verdict} by {self._judgement.by}")
        if not self.view.in_review:
            raise conflict(f"the case is not in review but {self.view.status}")

    @workflow.update(name="resolve")
    def _on_resolve(self, resolution: Resolution) -> CaseView:
        self._resolution = resolution
        self.note(f"person.{resolution.action}", resolution.reason, actor=resolution.by)
        return self.view

    @_on_resolve.validator
    def _may_resolve(self, resolution: Resolution) -> None:
        attention = self.view.attention
        if attention is None or self._resolution:
            raise conflict(f"the case needs nobody now: it is {self.view.status}")
        if resolution.action not in attention.actions:
            raise conflict(f"{attention.cause} allows {', '.join(attention.actions)}, not {resolution.action}")
        if resolution.amount is not None and not self.view.refunded <= resolution.amount <= self.view.approved:
            raise conflict(f"the amount lies between {self.view.refunded} (moved) and {self.view.approved} (approved)")

    @workflow.query(name="view")
    def _on_view(self) -> CaseView:
        return self.view

    def is_news(self, fact: str) -> bool:
        """Each fact has its own id; the same one twice is one."""
        known = fact in self._facts
        self._facts.add(fact)
        return not known

    # The projection and the engine ---------------------------------------------------------------------------------

    def note(self, step: str, text: str, actor: str = "system") -> None:
        """A line for the timeline; it is stored with the next activity."""
        self._noted = max(self._noted + 1, _clock())
        self._notes.append(Note(seq=self._noted, at=workflow.now(), step=step, text=text[:500], actor=actor))

    def progress(self, view: CaseView | None = None) -> Progress:
        """What the next activity stores along with its own work."""
        return Progress(view=view or self.view, at=workflow.now(), notes=tuple(self._notes))

    async def store(self) -> None:
        progress = self.progress()
        await write(Registration.store, progress)
        self.sent(progress)
        self._publish()

    def sent(self, progress: Progress) -> None:
        self._stored = max(self._stored, progress.view.revision)
        last = progress.notes[-1].seq if progress.notes else 0
        self._notes = [note for note in self._notes if note.seq > last]

    def _publish(self) -> None:
        """Keep the search attributes true where somebody would look for them."""
        status, view = self.view.status, self.view
        known = (self._published, self._published_deadline)
        if (status, view.deadline) == known or (status in _SOON and self._published in _SOON):
            return
        self._published, self._published_deadline = status, view.deadline
        cause = view.attention.cause if view.attention else None
        workflow.upsert_search_attributes(attributes.changes(status, cause, view.deadline))

    async def local(self, verb: Verb[T], what: object) -> T:
        """A tiny idempotent write to our own tables: nothing can go on without it."""
        while True:
            try:
                return await write(verb, what)
            except FailureError as error:
                await self.park("record", "unexpected", ": ".join(innermost(error)))

    async def outside(self, verb: Verb[T], what: object, within: timedelta | None = None) -> T:
        """A call that leaves the house: tried for as long as the policy says, then it is for a person."""
        return await call(verb, what, within=within or self.case.terms.payment.try_for)

    def _told(self, template: str) -> tuple[str, ...]:
        return self.case.terms.tell.get(template, ()) if self._registered else ()

    async def _seen_to(self, kind: EffectKind, resolution: Resolution) -> None:
        progress = self.progress()
        await self.local(Registration.settle_step_by_hand, StepByHand(progress=progress, kind=kind, voucher=resolution.voucher))
        self.sent(progress)

    async def _tell(
        self,
        template: str,
        recipients: tuple[str, ...],
        *,
        about: str = "",
        ending: Callable[[], CaseView] | None = None,
        facts: dict[str, str],
    ) -> None:
        known = {
            "amount": money.show(self.view.refunded, self.request.currency),
            "deadline": in_words(self.view.deadline) if self.view.deadline else "",
        }
        shown = MessageFacts(case_no="", order_id=self.request.order_id, **(known | facts))
        progress = self.progress(ending() if ending else None)
        message = Tell(
            progress=progress,
            request=self.request,
            template=template,
            recipients=recipients,
            facts=shown,
            about=about,
            address=self._buyer_address,
        )
        if recipients:
            await self.outside(Notification.tell, message, within=None if ending else _MENTION)
        else:
            await self.local(Notification.tell, message)
        self.sent(progress)


def _clock() -> int:
    return int(workflow.now().timestamp() * 1_000)
