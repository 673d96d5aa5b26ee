"""Events in by hand: `ingest`, `import`, `schema`."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from adapters.platforms import online_retail
from cli.context import Json, desk
from cli.output import console, errors, json_lines
from domain.errors import NotFound, Rejected
from domain.events import EVENT_TYPES
from starter import Answer, AnswerStatus, summary, take_lines
from web.schema import envelope_schema


def add_to(app: typer.Typer) -> None:
    app.command()(ingest)
    app.command("import")(import_)
    app.command()(schema)


def ingest(
    file: Annotated[str, typer.Argument(help="A JSON-lines file of CloudEvents, or - for standard input.")],
    as_json: Json = False,
) -> None:
    """Take the events of a file; safe to repeat.

    Example: aftersales ingest examples/events.jsonl

    Exit status 1 if an event was rejected (it is kept, see `aftersales inbox --state rejected`).
    """
    if file != "-" and not Path(file).is_file():
        raise NotFound(f"there is no file {file}")
    whole = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    _report(asyncio.run(_take(whole, as_json=as_json)), quiet=as_json)


async def _take(whole: bytes, *, as_json: bool = False) -> Counter[str]:
    """Take the events of a JSON-lines text, with progress on standard error; how many of each answer."""
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=errors)
    async with desk() as (_, starter):
        with bar:
            task = bar.add_task("events", total=sum(1 for line in whole.split(b"\n") if line.strip()))

            def heard(number: int, answer: Answer) -> None:
                if as_json:
                    json_lines([answer])
                elif answer.status is AnswerStatus.rejected:
                    errors.print(f"line {number}: {answer.complaint}", markup=False, highlight=False)
                bar.advance(task)

            return await take_lines(starter, whole, heard)


def _report(counts: Counter[str], *, quiet: bool = False) -> None:
    if not quiet:
        console.print(summary(counts))
    raise typer.Exit(1 if counts["rejected"] else 0)


def import_(
    source: Annotated[str, typer.Argument(help="Only online-retail: CSV of the UCI Online Retail data, plain or gzip.")],
    files: Annotated[list[Path], typer.Argument(help="The files, oldest first; a customer's whole history in one call.")],
    out: Annotated[Path | None, typer.Option(help="Write the events to this file instead of taking them.")] = None,
) -> None:
    """Turn another system's data into events, and take them; safe to repeat.

    Example: aftersales import online-retail 2010-12.csv.gz 2011-01.csv.gz 2011-02.csv.gz
    """
    if source != "online-retail":
        raise Rejected(f"{source!r} is not a source we read; online-retail is", field="SOURCE")
    for file in files:
        if not file.is_file():
            raise NotFound(f"there is no file {file}")
    if out:
        with out.open("w", encoding="utf-8") as target:
            target.writelines(line + "\n" for line in _online_retail(files))
        return
    _report(asyncio.run(_take("\n".join(_online_retail(files)).encode())))


def _online_retail(files: list[Path]) -> Iterator[str]:
    for event in online_retail.events(files):
        yield json.dumps(event.as_cloudevent(), ensure_ascii=False)


def schema(
    type_: Annotated[str | None, typer.Argument(metavar="TYPE", help="Without it, all types are listed.")] = None,
) -> None:
    """The published JSON Schema of an event type.

    Example: aftersales schema order.paid
    """
    if type_ is None:
        json_lines({"type": name, "about": (model.__doc__ or "").split(".")[0]} for name, model in EVENT_TYPES.items())
    elif type_ in EVENT_TYPES:
        console.file.write(json.dumps(envelope_schema(type_), indent=2, ensure_ascii=False) + "\n")
    else:
        raise NotFound(f"there is no event type {type_}; there are {', '.join(EVENT_TYPES)}")
