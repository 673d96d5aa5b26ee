"""Events in by hand against a running stack: `ingest`, `python starter.py FILE`, `schema`, each as a process of its own."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import func, select

from db.models import Case, InboxState, Order
from domain.cases import CaseStatus
from domain.events import EVENT_TYPES
from tests.desk import Desk, case_id, order_events, request_event
from tests.integration.kit import POLICIES, Json, inbox

ROOT = Path(__file__).parents[2]
AFTERSALES = ("-c", "from cli.main import main; main()")


class Ran(NamedTuple):
    status: int
    out: str
    err: str


async def run(*arguments: str, data_dir: Path, said: bytes = b"", **settings: str) -> Ran:
    """A program of ours in a process of its own, with nothing of this one's environment that is a setting."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AFTERSALES_", "TEMPORAL_", "DATABASE_"))}
    given = {"AFTERSALES_DATA_DIR": str(data_dir), "AFTERSALES_POLICIES": str(POLICIES), "COLUMNS": "200"} | settings
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, env=kept | given, stdin=-1, stdout=-1, stderr=-1
    )
    out, err = await asyncio.wait_for(process.communicate(said), 60)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


async def aftersales(desk: Desk, *arguments: str, said: bytes = b"") -> Ran:
    return await run(*AFTERSALES, *arguments, data_dir=desk.stack.settings.data_dir, said=said)


def lines(*events: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in events)


@pytest.fixture
def day(tmp_path: Path) -> Path:
    """A file with an order, a request that is good, and blank lines between them."""
    path = tmp_path / "day.jsonl"
    path.write_bytes(lines(*order_events("O1")) + b"\n  \n" + lines(request_event("O1", "R1")))
    return path


async def counts(desk: Desk) -> tuple[int, int, int]:
    async with desk.stack.db.read() as session:
        orders = await session.scalar(select(func.count()).select_from(Order))
        found = await session.scalar(select(func.count()).select_from(Case))
    return int(orders or 0), int(found or 0), len(await inbox(desk.stack.db, source="/shop"))


async def test_ingest_takes_a_file_once_however_often_it_is_told(desk: Desk, day: Path) -> None:
    first = await aftersales(desk, "ingest", str(day))
    assert (first.status, first.out) == (0, "4 accepted\n")
    assert "events" in first.err
    assert "4/4" in first.err
    await desk.status(case_id("R1"), CaseStatus.completed)
    before = await counts(desk)

    second = await aftersales(desk, "ingest", "-", said=day.read_bytes())

    assert (second.status, second.out) == (0, "4 duplicate\n")
    assert before == await counts(desk) == (1, 1, 4)
    assert len(await desk.refunds_of("pay-O1")) == 1
    await desk.check_audit()


async def test_ingest_names_the_line_of_what_it_rejects_and_takes_the_rest(desk: Desk, day: Path) -> None:
    bad = request_event("O1", "R2", lines=[{"line_id": "1", "quantity": 9}])
    day.write_bytes(day.read_bytes() + b'{"specversion"\n' + lines(bad, request_event("O9", "R3")))

    ran = await aftersales(desk, "ingest", str(day))

    assert (ran.status, ran.out) == (1, "4 accepted, 2 rejected, 1 waiting\n")
    assert "line 7: rejected: body: not JSON" in ran.err
    assert "line 8: rejected: data.lines.0.quantity: 9 units asked of 2 bought" in ran.err
    assert len(await inbox(desk.stack.db, state=InboxState.rejected)) == 2


async def test_ingest_answers_every_event_as_json_where_a_program_asks(desk: Desk, day: Path) -> None:
    day.write_bytes(day.read_bytes() + b"7\n")

    ran = await aftersales(desk, "ingest", "--json", str(day))

    answers: list[Json] = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.status == 1
    assert [answer["status"] for answer in answers] == ["accepted"] * 4 + ["rejected"]
    assert (answers[3]["case_id"], answers[4]["field"]) == (case_id("R1"), "body")


async def test_starter_py_takes_a_file_as_ingest_does(desk: Desk, day: Path) -> None:
    first = await run("starter.py", str(day), data_dir=desk.stack.settings.data_dir)
    assert (first.status, first.out, first.err) == (0, "4 accepted\n", "")
    await desk.status(case_id("R1"), CaseStatus.completed)

    day.write_bytes(day.read_bytes() + b"7\n")
    second = await run("starter.py", str(day), data_dir=desk.stack.settings.data_dir)

    assert (second.status, second.out) == (1, "4 duplicate, 1 rejected\n")
    assert second.err == "line 7: rejected: body: an event is a JSON object\n"
    assert (await aftersales(desk, "ingest", str(day))).out == second.out


@pytest.mark.parametrize("program", [(*AFTERSALES, "ingest"), ("starter.py",)])
async def test_events_by_hand_say_in_one_line_what_is_missing(tmp_path: Path, day: Path, program: tuple[str, ...]) -> None:
    no_file = await run(*program, "absent.jsonl", data_dir=tmp_path)
    no_server = await run(
        *program, str(day), data_dir=tmp_path, TEMPORAL_ADDRESS="127.0.0.1:1", DATABASE_URL=f"sqlite:///{day}.db"
    )

    for ran in (no_file, no_server):
        assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert ran.err.startswith("aftersales: ")
    assert "file" in no_file.err
    assert "no Temporal server at 127.0.0.1:1" in no_server.err


async def test_schema_lists_every_type_and_prints_the_one_asked_for(tmp_path: Path) -> None:
    listed = await run(*AFTERSALES, "schema", data_dir=tmp_path)
    assert listed.status == 0
    assert [json.loads(line)["type"] for line in listed.out.splitlines()] == list(EVENT_TYPES)

    printed = await run(*AFTERSALES, "schema", "order.paid", data_dir=tmp_path)

    assert printed.status == 0
    schema = json.loads(printed.out)
    Draft202012Validator.check_schema(schema)
    assert Draft202012Validator(schema).is_valid(order_events("O1")[0])
    assert not Draft202012Validator(schema).is_valid(request_event("O1", "R1"))


async def test_schema_of_an_unknown_type_says_which_there_are(tmp_path: Path) -> None:
    ran = await run(*AFTERSALES, "schema", "order.payed", data_dir=tmp_path)

    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("aftersales: there is no event type order.payed; there are order.paid, order.shipped")
