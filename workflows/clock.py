"""The one timer of a case.

A timer that is not needed any more is left alone until the case needs another, or ends: a case whose money is confirmed
within seconds never pays for cancelling the timer that watched over it.
"""

import asyncio
from datetime import datetime, timedelta

from temporalio import workflow


class Clock:
    def __init__(self) -> None:
        self._at: datetime | None = None
        self._timer: asyncio.Task[None] | None = None

    def set(self, at: datetime) -> None:
        """Ring at `at` and at no other time."""
        if at == self._at:
            return
        if self._timer and not self._timer.done():
            self._timer.cancel()
        self._at = at
        pause = max(at - workflow.now(), timedelta(0))
        self._timer = asyncio.create_task(asyncio.sleep(pause.total_seconds())) if pause else None

    @property
    def rang(self) -> bool:
        return self._timer is None or self._timer.done()
