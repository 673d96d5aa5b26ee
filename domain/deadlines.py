"""When a wait ends, and what is said on the way: pure, so that a moved deadline is just another value."""

from datetime import datetime, timedelta

from domain.cases import Model


class Mark(Model):
    """Something to tell at a moment of a wait: `template` at `at`, once."""

    template: str
    at: datetime


class Wait(Model):
    """A wait that began at `since` and expires after `within`, or when the platform says.

    `remind_after` the start, and `alarm_before` the end, people are told (by the named templates). The alarm moves with
    the end; the reminder does not.
    """

    since: datetime
    within: timedelta
    platform: datetime | None = None
    remind_after: timedelta | None = None
    reminder: str = ""
    alarm_before: timedelta | None = None
    alarm: str = ""

    @property
    def expires_at(self) -> datetime:
        return self.platform or self.since + self.within

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What to tell and when, earliest first; an alarm is never later than the end and never before the start."""
        marks = []
        if self.remind_after is not None and self.since + self.remind_after < self.expires_at:
            marks.append(Mark(template=self.reminder, at=self.since + self.remind_after))
        if self.alarm_before is not None:
            pause = max(timedelta(0), self.expires_at - self.since - self.alarm_before)
            marks.append(Mark(template=self.alarm, at=self.since + pause))
        return tuple(sorted(marks, key=lambda mark: mark.at))

    def next_moment(self, told: frozenset[str]) -> datetime:
        """When to wake up next: the first thing not yet told, or the end."""
        return min([mark.at for mark in self.marks if mark.template not in told] + [self.expires_at])


def polls(after: timedelta, at_most: timedelta, count: int) -> timedelta:
    """The pause before the poll number `count` (from 0): doubling, up to `at_most`."""
    return min(after * float(1 << min(count, 20)), at_most)


def in_words(at: datetime) -> str:
    """For people: `2026-11-22 15:30 UTC`."""
    return f"{at:%Y-%m-%d %H:%M} UTC"
