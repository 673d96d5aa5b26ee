"""The books for accountants: `journal`."""

import asyncio
import sys
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Annotated, TextIO

import typer

from adapters.books.hledger import Opening
from adapters.books.hledger import journal as hledger_journal
from cli.context import records
from db import ledger
from domain.errors import Rejected

_DAY = ["%Y-%m-%d"]


def add_to(app: typer.Typer) -> None:
    app.command()(journal)


def journal(
    format_: Annotated[str, typer.Option("--format", help="Whose format: hledger.")] = "hledger",
    from_: Annotated[datetime | None, typer.Option("--from", formats=_DAY, metavar="DATE", help="First day (UTC).")] = None,
    to: Annotated[datetime | None, typer.Option(formats=_DAY, metavar="DATE", help="Last day (UTC).")] = None,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of standard output.")] = None,
) -> None:
    """Write the books as a journal, with an assertion of every balance at the end of every day.

    With --from it opens with what was owned and owed when that day began.

    Example: aftersales journal --format hledger --from 2026-11-01 --to 2026-11-30 --out november.journal
    """
    if format_ != "hledger":
        raise Rejected(f"{format_!r} is not a format we write; hledger is", field="--format")
    if from_ and to and to < from_:
        raise Rejected(f"{to:%Y-%m-%d} is before --from {from_:%Y-%m-%d}", field="--to")
    since = from_.replace(tzinfo=UTC) if from_ else None
    until = datetime.combine(to, time.max, UTC) if to else None
    if out is None:
        asyncio.run(_write(sys.stdout, since, until))
    else:
        _to_file(out, since, until)


def _to_file(out: Path, since: datetime | None, until: datetime | None) -> None:
    """The whole journal or none: a part of one may look whole to hledger."""
    draft = out.with_name(out.name + ".part")
    try:
        with draft.open("w", encoding="utf-8") as file:
            asyncio.run(_write(file, since, until))
        draft.replace(out)
    except OSError as error:
        raise Rejected(f"{out} cannot be written ({error.strerror})", field="--out") from error
    finally:
        draft.unlink(missing_ok=True)


async def _write(file: TextIO, since: datetime | None, until: datetime | None) -> None:
    async with records() as db, db.read() as session:
        opening = Opening(since.date(), await ledger.balances(session, since)) if since else None
        async for line in hledger_journal(ledger.between(session, since, until), opening):
            file.write(line + "\n")
