"""The few ways in which something can go wrong, as one tree.

    AftersalesError
    ├── Rejected         the request or its input is not acceptable; saying it again will not help
    ├── NotFound         what was named does not exist
    ├── Conflict         true of something else already: a key with another content, a second decision
    ├── DependencyDown   an outside system could not be reached, and surely did nothing
    │   └── RateLimited  … and said when to come again
    ├── OutcomeUnknown   an outside system was asked and we do not know what it did
    └── Invariant        what must never happen has happened

`workflows` and `activities` map a code to Temporal's `ApplicationError(type=code)` in one place, `activities/effects.py`.
"""


class AftersalesError(Exception):
    """A fact about what went wrong; `field` names the input at fault and `code` is the class name."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    @property
    def code(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class Rejected(AftersalesError):
    """Not acceptable as it stands. `cause` is the outside system's own code where it gave one."""

    def __init__(self, message: str, *, field: str | None = None, cause: str = "rejected") -> None:
        super().__init__(message, field=field)
        self.cause = cause


class NotFound(AftersalesError):
    """What was named does not exist."""


class Conflict(AftersalesError):
    """True of something else already."""


class DependencyDown(AftersalesError):
    """An outside system surely did nothing; trying again is safe."""


class RateLimited(DependencyDown):
    """`retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OutcomeUnknown(AftersalesError):
    """The call may or may not have taken effect: look it up, never call again blindly."""


class Invariant(AftersalesError):
    """A rule that must always hold does not; a person has to look."""
