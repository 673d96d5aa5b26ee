"""How commands show things: a table for people, one JSON object a line for programs."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

_IN_A_PIPE = None if sys.stdout.isatty() else 200

console = Console(width=_IN_A_PIPE)
"""Where people read; in a pipe it is as wide as rows are long."""
errors = Console(stderr=True)


def json_lines(rows: Iterable[BaseModel | Mapping[str, Any]]) -> None:
    """One object a line, to standard output as it is."""
    for row in rows:
        plain = row.model_dump(mode="json") if isinstance(row, BaseModel) else row
        typed_line = json.dumps(plain, ensure_ascii=False, default=str)
        console.file.write(typed_line + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; numbers stand to the right."""
    shown = Table(title=title, title_justify="left", header_style="bold", show_edge=False, pad_edge=False)
    materialized = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(materialized) and all(_is_number(row[index]) for row in materialized)
        shown.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=not index)
    for row in materialized:
        shown.add_row(*(Text(text(value)) for value in row))  # [x] in a text means itself
    console.print(shown)


def _is_number(value: object) -> bool:
    """A count, or an amount as `money.show` writes it."""
    return isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"[A-Z]{3} -?[\d,.]+", value) is not None)


def text(value: object) -> str:
    """A value for people: times in UTC to the second, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return str(value)
