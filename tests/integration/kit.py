"""Records as the intake fills them, without any workflow: for tests of what stands below the processes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from db import cases
from db.models import InboxRow
from db.session import Database
from domain.cases import CaseRequest, CaseView, Note, Progress
from domain.policy import Policies
from domain.policy_file import parse
from settings import Settings
from starter import Answer, Starter
from tests.desk import case_id, now, order_events, request_event
from web.app import create_app
from web.server import serving

Json = dict[str, Any]
ONE, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
POLICIES = Path(__file__).parents[1] / "policies"


def policies(*changes: tuple[str, str]) -> Policies:
    """The rules of the tests, with texts replaced in their YAML."""
    [(name, text)] = Settings(policies=POLICIES).policy_texts().items()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return parse({name: text})


def untold(db: Database, *, rules: Policies | None = None, order_wait: timedelta = timedelta(days=7)) -> Starter:
    """A starter that no workflow hears of: what a crash right after the commit leaves behind."""
    return Starter(db, rules or policies(), None, task_queue="none", order_wait=order_wait)


async def take(db: Database, *events: dict[str, Any], rules: Policies | None = None) -> list[Answer]:
    return [await untold(db, rules=rules).take(one) for one in events]


async def opened(
    db: Database, order_id: str, *references: str, order: dict[str, Any] | None = None, **more: Any
) -> list[CaseRequest]:
    """An order, and a case for each reference; `order` and `more` change what the order and the requests say."""
    requests = [request_event(order_id, reference, **more) for reference in references]
    for answer in await take(db, *order_events(order_id, **(order or {})), *requests):
        assert answer.status == "accepted", answer
    async with db.read() as session:
        return [(await cases.named(session, case_id(reference))).request for reference in references]


async def inbox(db: Database, **where: object) -> list[InboxRow]:
    """The rows of the inbox, oldest first."""
    async with db.read() as session:
        return list(await session.scalars(select(InboxRow).filter_by(**where).order_by(InboxRow.id)))


def progress(case: str, *notes: str, **view: Any) -> Progress:
    """What an activity carries of its case; notes are numbered from the view's revision on."""
    shown = CaseView(case_id=case, **view)
    lines = [Note(seq=shown.revision + n, at=now(), step="test.step", text=text) for n, text in enumerate(notes)]
    return Progress(view=shown, at=now(), notes=tuple(lines))


@asynccontextmanager
async def intake_on(db: Database, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The intake over real HTTP, without any workflow behind it."""
    given = Settings(**({"allow_unsigned": True} | settings))
    async with serving(create_app(given, untold(db))) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client
