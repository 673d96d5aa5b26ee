"""What a command works with: the settings, the records, and (where it needs them) a starter with a Temporal client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from db.session import Database
from domain.errors import DependencyDown
from domain.policy_file import parse
from engine.client import connect
from settings import Settings, load
from starter import Starter

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]
CaseName = Annotated[
    str, typer.Argument(metavar="ID", help="A case id (merchant:channel:reference) or a case_no (AS-2026-000123)")
]


def settings(data_dir: Path | None = None) -> Settings:
    """The settings of this command; `Rejected` for a bad one."""
    return load(data_dir=data_dir) if data_dir else load()


@asynccontextmanager
async def records(given: Settings | None = None) -> AsyncIterator[Database]:
    """The records, for commands that only read them. `DependencyDown` if there are none yet."""
    found = given or settings()
    if not found.database_url and not (found.data_dir / "aftersales.db").exists():
        raise DependencyDown(f"there are no records in {found.data_dir}: start with `aftersales up`, or set DATABASE_URL")
    db = Database(found.records_url)
    try:
        yield db
    finally:
        await db.close()


@asynccontextmanager
async def desk(given: Settings | None = None) -> AsyncIterator[tuple[Database, Starter]]:
    """The records and a starter with a client, for commands that speak to workflows. `DependencyDown` without a server."""
    found = given or settings()
    async with records(found) as db:
        client = await connect(found)
        wait = timedelta(seconds=found.order_wait_seconds)
        yield db, Starter(db, parse(found.policy_texts()), client, task_queue=found.task_queue, order_wait=wait)
