"""What we need of a channel that carries messages."""

from typing import Protocol

from domain.cases import Model
from domain.effects import Outcome


class Message(Model):
    """A rendered message. `key` makes a repeat recognisable to the receiver; `address` may be empty where the channel
    knows the recipient by the case."""

    key: str
    case_id: str
    template: str
    recipient: str
    address: str
    locale: str
    subject: str
    text: str


class Messenger(Protocol):
    needs_address: bool
    """Whether a recipient without an address cannot be told."""

    async def send(self, message: Message) -> Outcome:
        """*succeeded* once the other side took it, *declined* if it will never take it. Raises `OutcomeUnknown`,
        `DependencyDown`, `RateLimited`; sending again under the same key is recognised there."""
        ...
