"""What a person says to a case: the decision of a review, and the way out of attention."""

from domain.cases import Action, Model
from domain.policy import Verdict


class Judgement(Model):
    """A person's decision on a case in review: approve or decline, and why."""

    verdict: Verdict
    by: str
    reason: str


class Resolution(Model):
    """A person's way out of attention. What an *amend* changes, and the voucher of a *settle by hand*, are named; all else
    stays as it was."""

    action: Action
    by: str
    reason: str
    voucher: str = ""
    amount: int | None = None
    """Refund this many minor units in all."""
    tender_id: str | None = None
    """Refund over this tender first."""
    recipient: str | None = None
    """Tell the buyer at this address."""
    waive: bool = False
    """Go on without the step that is stuck."""

    @property
    def amends(self) -> bool:
        return self.waive or self.amount is not None or bool(self.tender_id or self.recipient)
