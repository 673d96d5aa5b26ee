"""A case: its identity, its state as everyone sees it, and the one headline derived from that state.

`CaseView` is what a running workflow answers when it is asked, what it returns when it ends, and what the tables show:
one shape, so that `aftersales audit` can compare them.
"""

from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict

from domain.events import AftersaleRequested, CaseKind, Grade


class Model(BaseModel):
    """Frozen, and tolerant of fields it does not know: these live in workflow histories."""

    model_config = ConfigDict(frozen=True)


class CaseStatus(StrEnum):
    open = "open"
    awaiting_customer = "awaiting_customer"
    awaiting_warehouse = "awaiting_warehouse"
    awaiting_settlement = "awaiting_settlement"
    in_review = "in_review"
    attention = "attention"
    completed = "completed"
    declined = "declined"
    withdrawn = "withdrawn"
    expired = "expired"


OUTCOMES = frozenset({CaseStatus.completed, CaseStatus.declined, CaseStatus.withdrawn, CaseStatus.expired})
"""The statuses in which a case ends; a case has exactly one of them, once."""


class TrackState(StrEnum):
    """How far one track of a case is."""

    none = "none"
    to_do = "to_do"
    awaiting_customer = "awaiting_customer"
    awaiting_warehouse = "awaiting_warehouse"
    awaiting_settlement = "awaiting_settlement"
    stuck = "stuck"
    done = "done"
    stopped = "stopped"


class Tracks(Model):
    """The parallel strands of a case, each with its own state."""

    goods_in: TrackState = TrackState.none
    goods_out: TrackState = TrackState.none
    money: TrackState = TrackState.none
    messages: TrackState = TrackState.none


class Action(StrEnum):
    """What a person can do with a case that cannot go on by itself."""

    retry = "retry"
    amend = "amend"
    settle_by_hand = "settle-by-hand"
    abandon = "abandon"


class Attention(Model):
    """Why a case cannot go on: the step, the cause code (`domain.attention`), what was seen, and what can be done."""

    step: str
    cause: str
    detail: str
    since: datetime
    actions: tuple[Action, ...]


class Claim(Model):
    """Units of an order line and the minor units claimed for them."""

    line_id: str
    quantity: int
    amount: int


class CaseView(Model):
    """The state of a case at one moment. Amounts are minor units; `revision` grows with every change, so that a late
    writer never puts an older state over a newer one."""

    case_id: str
    revision: int = 0
    tracks: Tracks = Tracks()
    in_review: bool = False
    attention: Attention | None = None
    outcome: CaseStatus | None = None
    deadline: datetime | None = None
    approved: int = 0
    refunded: int = 0
    taken: tuple[Claim, ...] = ()
    """What the case took of the order's entitlement for good; final with the outcome."""

    @property
    def status(self) -> CaseStatus:
        return headline(self)

    def after(self, **changes: object) -> Self:
        """The next revision with `changes` made."""
        return self.model_copy(update={**changes, "revision": self.revision + 1})

    def on(self, **tracks: TrackState) -> Self:
        """The next revision with these tracks moved."""
        return self.after(tracks=self.tracks.model_copy(update=tracks))


def headline(view: CaseView) -> CaseStatus:
    """The one status that people see: the outcome, else what needs a person, else the first track that waits."""
    if view.outcome:
        return view.outcome
    if view.attention:
        return CaseStatus.attention
    if view.in_review:
        return CaseStatus.in_review
    waits = {state.value for state in TrackState} & {status.value for status in CaseStatus}
    for state in (view.tracks.goods_in, view.tracks.goods_out, view.tracks.money, view.tracks.messages):
        if state.value in waits:
            return CaseStatus(state.value)
    return CaseStatus.open


class Note(Model):
    """One line of a case's timeline. `actor` is a person's name or `system`; `step` a dotted code, `text` for people."""

    seq: int
    at: datetime
    step: str
    text: str
    actor: str = "system"


class Progress(Model):
    """What every activity carries of its case: the state to store with its own work, and the news since the last."""

    view: CaseView
    at: datetime
    notes: tuple[Note, ...] = ()

    @property
    def case_id(self) -> str:
        return self.view.case_id


class CaseRequest(Model):
    """The input of a case workflow: the request without anything personal."""

    case_id: str
    kind: CaseKind
    merchant: str
    channel: str
    order_id: str
    currency: str
    reason: str
    requested_at: datetime
    deadline: datetime | None = None
    lines: tuple[Claim, ...]
    """What was asked for, with the amount filled in where the request named none."""

    @property
    def order_key(self) -> str:
        return order_key(self.merchant, self.channel, self.order_id)

    @classmethod
    def of(cls, event: AftersaleRequested, claims: tuple[Claim, ...]) -> Self:
        assert event.order_id is not None
        return cls(
            case_id=event.case_id,
            kind=event.kind,
            merchant=event.merchant,
            channel=event.channel,
            order_id=event.order_id,
            currency=event.currency,
            reason=event.reason,
            requested_at=event.requested_at,
            deadline=event.deadline,
            lines=claims,
        )


class Counted(Model):
    """Units of a line that the warehouse counted, with what it found them to be."""

    line_id: str
    quantity: int
    grade: Grade


def order_key(merchant: str, channel: str, order_id: str) -> str:
    """`merchant:channel:order`, the key of an order everywhere."""
    return f"{merchant}:{channel}:{order_id}"


def workflow_id(case_id: str) -> str:
    """`lanhua:tmall:R1` → `case/lanhua:tmall:R1`."""
    return f"case/{case_id}"


def case_number(year: int, sequence: int) -> str:
    """The short number that people say: `AS-2026-000123`."""
    return f"AS-{year}-{sequence:06d}"
