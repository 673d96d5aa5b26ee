"""Nothing personal leaves the records: not into the engine, its files and its lists, nor into any log."""

import io
import logging
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest
import structlog
from sqlalchemy.exc import IntegrityError
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.client import Client

from db.models import InboxState, Order
from db.session import Database
from domain.cases import Action, CaseStatus, workflow_id
from domain.events import Buyer
from domain.policy import Verdict
from engine.codec import Keyring, data_converter
from engine.logs import configure
from settings import Settings
from tests.desk import Desk, case_id, counted, fact, now, order_events, request_event
from tests.integration.kit import inbox, opened, take

NAME, EMAIL, PHONE = "欧阳小蕊", "ouyang.xiaorui@example.org", "+86-139-0777-3141"
NOTE, CORRECTED = "浦东新区世纪大道1号七楼，开线了", "xiaorui.new@example.org"
PLANTED = (NAME, EMAIL, PHONE, NOTE)
BUYER = {"buyer_id": "b-1", "name": NAME, "email": EMAIL, "phone": PHONE}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that is logged, as an operator who wants to know all would see it."""
    seen, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with redirect_stderr(seen):
        configure(Settings(log_json=True, log_level="debug"))
    yield seen
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def found_in(where: bytes, texts: tuple[str, ...]) -> set[str]:
    """Which of these stand in it, as they are or as JSON escapes them."""
    escaped = {text: text.encode("ascii", "backslashreplace") for text in texts}
    return {text for text in texts if text.encode() in where or escaped[text] in where}


def on_disk(path: Path) -> bytes:
    """A SQLite database with what its write-ahead log still holds."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))


async def as_the_server_has_it(plain: Client, case: str) -> bytes:
    """The history of a case and all that lists show of it, raw."""
    request = GetWorkflowExecutionHistoryRequest(
        namespace=plain.namespace, execution=WorkflowExecution(workflow_id=workflow_id(case))
    )
    history = await plain.workflow_service.get_workflow_execution_history(request)
    assert not history.next_page_token
    described = await plain.get_workflow_handle(workflow_id(case)).describe()
    return history.SerializeToString() + described.raw_description.SerializeToString()


async def decrypted(desk: Desk, plain: Client, case: str) -> bytes:
    """All payloads of a history, as those who hold the keys read them."""
    keyring = Keyring.load(desk.stack.settings)
    codec = data_converter(keyring).payload_codec
    assert codec is not None
    history = await plain.get_workflow_handle(workflow_id(case)).fetch_history()
    update = [e.workflow_execution_update_accepted_event_attributes for e in history.events]
    payloads = [payload for one in update for payload in one.accepted_request.input.args.payloads]
    return b"".join(payload.data for payload in await codec.decode(payloads))


async def play(desk: Desk) -> list[str]:
    """A refund paid, a return counted and paid, one decided by a person, and one that was stuck until a person gave
    another address; the case ids."""
    await desk.order("O1", buyer=BUYER, lines=[{"line_id": "1", "sku": "TEA-1", "quantity": 9, "amount": 900_000}])
    cases = [case_id(f"R{n}") for n in range(4)]
    await desk.plan(cases[1], {"receipt_id": "W1", "after_seconds": 0.1, "lines": counted(sellable=1), "final": True})
    await desk.fault(cases[3], "message_down", times=None)
    for n, (kind, amount) in enumerate((("refund", 40_000), ("return", 40_000), ("refund", 60_000), ("refund", 30_000))):
        line = {"line_id": "1", "quantity": 1, "amount": amount}
        await desk.request("O1", f"R{n}", kind=kind, note=NOTE, lines=[line])
    await desk.tell(fact("parcel.returning", "R1", waybill="SF77", sent_at=now().isoformat()))
    await desk.status(cases[2], CaseStatus.in_review)
    await desk.decide(cases[2], Verdict.approve)
    await desk.status(cases[3], CaseStatus.attention)
    await desk.sandbox.delete("/faults")
    await desk.resolve(cases[3], Action.amend, recipient=CORRECTED)
    for case in cases:
        await desk.status(case, CaseStatus.completed)
    return cases


async def test_what_is_personal_is_in_the_records_and_nowhere_else(log: io.StringIO, desk: Desk) -> None:
    cases = await play(desk)
    await desk.check_audit()
    data, plain = desk.stack.settings.data_dir, await Client.connect(desk.stack.server.address)
    server = {case: await as_the_server_has_it(plain, case) for case in cases}

    assert {case: found_in(raw, (*PLANTED, CORRECTED)) for case, raw in server.items()} == {case: set() for case in cases}
    assert found_in(on_disk(data / "temporal.db"), (*PLANTED, CORRECTED)) == set()
    assert found_in(log.getvalue().encode(), (*PLANTED, CORRECTED)) == set()

    # What the messenger's failures said is in the log, where ops look for it, and encoded on the server.
    assert found_in(server[cases[3]], ("Encoded failure", "answered 503")) == {"Encoded failure"}
    assert found_in(log.getvalue().encode(), ("answered 503",)) == {"answered 503"}
    # … and each of these searches finds what is there.
    assert found_in(on_disk(data / "aftersales.db"), PLANTED) == set(PLANTED)
    assert found_in(await decrypted(desk, plain, cases[3]), (CORRECTED,)) == {CORRECTED}
    assert found_in(server[cases[3]], (cases[3], "aftersales")) == {cases[3], "aftersales"}
    assert found_in(on_disk(data / "temporal.db"), tuple(cases)) == set(cases)
    assert found_in(log.getvalue().encode(), (*cases, "attention")) == {*cases, "attention"}


async def test_a_bad_event_is_answered_and_logged_without_quoting_it_but_kept_whole(db: Database, log: io.StringIO) -> None:
    long = {"buyer_id": f"{NAME} {PHONE}", "name": NAME * 200, "email": EMAIL * 20, "phone": PHONE * 9, "locale": NAME}
    noted = request_event("O1", "R1", note=NOTE * 50)

    answers = await take(db, order_events("O1", buyer=long)[0], noted, noted | {"data": [NAME, PHONE]})

    assert {answer.status for answer in answers} == {"rejected"}
    said = "".join(answer.model_dump_json() for answer in answers) + log.getvalue()
    rows = await inbox(db, state=InboxState.rejected)
    assert found_in((said + "".join(row.reason for row in rows)).encode(), (*PLANTED, EMAIL)) == set()
    assert found_in("".join(row.body for row in rows).encode(), PLANTED) == set(PLANTED)


async def test_an_error_of_the_database_does_not_quote_what_was_written(db: Database) -> None:
    [request] = await opened(db, "O1", "R1")
    async with db.read() as session:
        known = await session.get_one(Order, request.order_key)
    values = {column.key: getattr(known, column.key) for column in Order.__table__.columns}

    with pytest.raises(IntegrityError) as told:
        async with db.write() as session:
            session.add(Order(**values | {"buyer": Buyer(buyer_id="b", name=NAME, email=EMAIL)}))

    assert "INSERT INTO orders" in str(told.value)
    assert found_in(str(told.value).encode(), (NAME, EMAIL)) == set()
