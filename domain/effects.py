"""The life of an effect: any call that changes the outside world, logged under a key before it is made.

The state that is committed *before* a call is `unknown`, because that is exactly what we know if we die during it. So a
crash leaves the truth behind, and whoever comes next looks up instead of calling again.

    planned ──call──▶ unknown ──┬─▶ succeeded ─▶ failed   (the provider took it back)
       ▲                 │      ├─▶ pending ──┬─▶ succeeded
       └─ surely undone ─┘      │             └─▶ failed
                                └─▶ declined
"""

from enum import StrEnum

from domain.cases import Model


class EffectState(StrEnum):
    planned = "planned"
    unknown = "unknown"
    pending = "pending"
    succeeded = "succeeded"
    declined = "declined"
    failed = "failed"


LIVE = frozenset({EffectState.planned, EffectState.unknown, EffectState.pending, EffectState.succeeded})
"""States in which an amount is moved, moving, or may have moved: it counts against the cap of its tender."""
OPEN = frozenset({EffectState.unknown, EffectState.pending})
"""States in which we wait to hear what happened."""
DEAD = frozenset({EffectState.declined, EffectState.failed})
"""States in which surely nothing stays moved: only after these may a new key be used."""

_NEXT: dict[EffectState, frozenset[EffectState]] = {
    EffectState.planned: frozenset(EffectState) - {EffectState.planned},
    EffectState.unknown: frozenset(EffectState) - {EffectState.unknown},
    EffectState.pending: frozenset({EffectState.succeeded, EffectState.failed}),
    EffectState.succeeded: frozenset({EffectState.failed}),
    EffectState.declined: frozenset(),
    EffectState.failed: frozenset(),
}


class EffectKind(StrEnum):
    refund = "refund"
    rma = "rma"
    cancel_rma = "cancel_rma"
    stop_shipment = "stop_shipment"
    message = "message"


class Outcome(Model):
    """What we learned about an effect. `reference` is the other side's; `amount` (minor units) only where money moved;
    `cause` is a code for what went wrong and `detail` a sentence about it."""

    state: EffectState
    reference: str = ""
    amount: int | None = None
    cause: str = ""
    detail: str = ""


def news(known: EffectState, learned: EffectState) -> bool:
    """Does `learned` tell something that `known` does not? An echo or an older report does not."""
    return learned in _NEXT[known]


def refund_key(case_id: str, tender_id: str, round_: int) -> str:
    """`refund:{case}:{tender}:{slice}`: one slice a tender in each round of paying; a new round only after a proven
    decline of the old one."""
    return f"refund:{case_id}:{tender_id}:{round_}"


def rma_key(case_id: str) -> str:
    return f"rma:{case_id}"


def cancel_rma_key(case_id: str) -> str:
    return f"cancel_rma:{case_id}"


def stop_key(case_id: str) -> str:
    return f"stop_shipment:{case_id}"


def message_key(case_id: str, template: str, recipient: str) -> str:
    return f"message:{case_id}:{template}:{recipient}"
