"""What the intake answers to events that are not as they should be, and that nothing of it is lost."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from db.models import InboxState
from db.session import Database
from tests.desk import event, order_events, request_event
from tests.integration.kit import BATCH, ONE, Json, inbox, intake_on

FAR = "2100-01-01T00:00:00Z"


@pytest.fixture
async def intake(db: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with intake_on(db) as client:
        yield client


async def tell(intake: httpx.AsyncClient, *events: Any) -> list[tuple[int, str]]:
    """(HTTP status, status of the answer) of each event."""
    told = []
    for one in events:
        answer = await intake.post("/events", json=one, headers={"content-type": ONE})
        told.append((answer.status_code, answer.json()["status"]))
    return told


def asking(**changes: Any) -> Json:
    return request_event("O1", "R1", **changes)


def line(**changes: Any) -> list[Json]:
    return [{"line_id": "1", "quantity": 1} | changes]


BAD: dict[str, tuple[Json, str, str]] = {
    "an unknown type": (asking() | {"type": "aftersale.wished"}, "type", "'aftersale.wished' is not a type we take"),
    "another version of CloudEvents": (asking() | {"specversion": "0.3"}, "specversion", "'0.3' is not 1.0"),
    "a time that is none": (asking() | {"time": "yesterday"}, "time", "not an RFC 3339 time"),
    "a time beyond the calendar": (asking() | {"time": "9999-12-31T24:00:00Z"}, "time", "not an RFC 3339 time"),
    "no data": (asking() | {"data": None}, "data", "Input should be an object"),
    "a currency that is no code": (asking(currency="yuan"), "data.currency", "match pattern"),
    "another currency than the order's": (asking(currency="USD"), "data.currency", "USD asked on an order in CNY"),
    "a negative quantity": (asking(lines=line(quantity=-1)), "data.lines.0.quantity", "greater than 0"),
    "no quantity": (asking(lines=line(quantity=0)), "data.lines.0.quantity", "greater than 0"),
    "more units than bought": (asking(lines=line(quantity=3)), "data.lines.0.quantity", "3 units asked of 2 bought"),
    "an unknown line": (asking(lines=line(line_id="9")), "data.lines.0.line_id", "the order has no line 9"),
    "more than was paid": (asking(lines=line(amount=5_001)), "data.lines.0.amount", "5001 asked where 5000 was paid"),
    "a date in the far future": (asking(requested_at=FAR), "data.requested_at", "lies too far in the future"),
    "a deadline in the far future": (asking(deadline=FAR), "data.deadline", "lies too far in the future"),
    "a date before the calendar": (asking(requested_at="0001-01-01T00:00:00+14:00"), "data", "beyond the calendar"),
    "a date without a zone": (asking(requested_at="2026-11-20T08:00:00"), "data.requested_at", "timezone"),
    "a field that nobody knows": (asking(amuont=5), "data.amuont", "Extra inputs are not permitted"),
    "a NUL in a text": (asking(note="so\0so"), "data.note", "cannot be stored"),
    "half a character": (asking(note="\ud83d"), "data.note", "cannot be stored"),
}


@pytest.mark.parametrize("bad", BAD)
async def test_a_bad_event_is_answered_with_what_is_wrong_where_and_kept_and_may_be_corrected_under_its_id(
    db: Database, intake: httpx.AsyncClient, bad: str
) -> None:
    await tell(intake, *order_events("O1"))
    said, field, reason = BAD[bad]

    answer = await intake.post("/events", content=json.dumps(said), headers={"content-type": ONE})

    assert (answer.status_code, answer.json()["status"], answer.json()["field"]) == (422, "rejected", field)
    assert reason in answer.json()["reason"]
    [kept] = await inbox(db, state=InboxState.rejected)
    assert kept.reason == f"{field}: {answer.json()['reason']}"
    assert kept.body
    assert await tell(intake, asking()) == [(202, "accepted")]
    assert len(await inbox(db, event_id="R1-requested", state=InboxState.accepted)) == 1


BROKEN: dict[str, tuple[bytes, str]] = {
    "cut short": (json.dumps(asking()).encode()[:-9], "not JSON"),
    "empty": (b"", "not JSON"),
    "NaN": (b'{"specversion": NaN}', "NaN is not a JSON number"),
    "an abyss": (b"[" * 100_000, "not JSON"),
    "a number without end": (b"9" * 10_000, "not JSON"),
    "not UTF-8": (json.dumps(asking(note="旧"), ensure_ascii=False).encode("gb18030"), "not UTF-8 at byte"),
    "no object": (b'"R1"', "an event is a JSON object"),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_body_that_is_no_event_is_answered_and_kept(db: Database, intake: httpx.AsyncClient, broken: str) -> None:
    body, reason = BROKEN[broken]

    answer = await intake.post("/events", content=body, headers={"content-type": ONE})

    assert (answer.status_code, answer.json()["field"]) == (422, "body")
    assert reason in answer.json()["reason"]
    [kept] = await inbox(db)
    assert (kept.state, kept.reason) == (InboxState.rejected, f"body: {answer.json()['reason']}")
    assert kept.body.encode()[:20] == body.decode("utf-8", "replace").encode()[:20]


async def test_the_same_id_with_another_content_is_a_conflict_and_changes_nothing(
    db: Database, intake: httpx.AsyncClient
) -> None:
    await tell(intake, *order_events("O1"), asking())

    assert await tell(intake, asking(reason="damaged")) == [(409, "rejected")]

    [first] = await inbox(db, event_id="R1-requested")
    assert '"quality"' in first.body
    [second] = await inbox(db, state=InboxState.rejected)
    assert second.reason == "id: event R1-requested of /shop was told before with another content"
    assert '"damaged"' in second.body


CONFLICTS: dict[str, tuple[Json, str]] = {
    "a request": (request_event("O1", "R1", id_="again", reason="damaged"), "data.reference"),
    "an order": (order_events("O1", currency="GBP")[0] | {"id": "again"}, "data.order_id"),
}


@pytest.mark.parametrize("conflict", CONFLICTS)
async def test_what_is_known_already_is_a_conflict_with_another_content_and_a_duplicate_with_the_same(
    db: Database, intake: httpx.AsyncClient, conflict: str
) -> None:
    order = order_events("O1")
    await tell(intake, *order, asking())
    said, field = CONFLICTS[conflict]

    answer = await intake.post("/events", json=said, headers={"content-type": ONE})

    assert (answer.status_code, answer.json()["field"]) == (409, field)
    [kept] = await inbox(db, state=InboxState.rejected)
    assert "another content" in kept.reason
    same = asking() if said["type"] == "aftersale.requested" else order[0]
    assert await tell(intake, same | {"id": "again"}) == [(200, "duplicate")]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_ten_megabytes_is_refused_whether_it_says_its_length_or_not(
    db: Database, intake: httpx.AsyncClient, chunked: bool
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b" " * 65_536

    body: Any = pieces() if chunked else b" " * 10_000_000
    answer = await intake.post("/events", content=body, headers={"content-type": ONE})

    assert (answer.status_code, answer.json()) == (413, {"field": "body", "reason": "larger than 2000000 bytes"})
    assert await inbox(db) == []
    assert await tell(intake, *order_events("O1"), asking()) == [(202, "accepted")] * 4


async def test_another_content_type_is_refused_by_name(db: Database, intake: httpx.AsyncClient) -> None:
    answer = await intake.post("/events", content=json.dumps(asking()), headers={"content-type": "text/plain"})

    assert (answer.status_code, answer.json()["field"]) == (415, "content-type")
    assert await inbox(db) == []


async def test_who_asks_too_often_is_told_when_to_come_again_and_is_let_in_then(db: Database) -> None:
    async with intake_on(db, max_requests_per_second=2) as intake:
        told = [intake.post("/events", json=one, headers={"content-type": ONE}) for one in order_events("O1") * 10]
        answers = await asyncio.gather(*told)

        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) >= 15  # of 30 at once, two seconds' worth and what slow seconds add are taken
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert len(answers) - len(refused) >= 4
        assert (await intake.get("/health")).json() == {"status": "ok"}
    assert len(await inbox(db)) <= 3


async def test_a_batch_takes_the_good_ones_whatever_the_others_are(db: Database, intake: httpx.AsyncClient) -> None:
    paid, shipped, delivered = order_events("O1")
    batch = [paid, asking(lines=line(quantity=3)), shipped, 7, delivered, asking(), paid]

    answer = await intake.post("/events", json=batch, headers={"content-type": BATCH})

    assert answer.status_code == 207
    told = ["accepted", "rejected", "accepted", "rejected", "accepted", "accepted", "duplicate"]
    assert [one["status"] for one in answer.json()] == told
    assert [one.get("field") for one in answer.json() if one["status"] == "rejected"] == ["data.lines.0.quantity", "body"]
    assert len(await inbox(db, state=InboxState.rejected)) == 2


async def test_a_batch_of_too_many_is_refused_whole(db: Database, intake: httpx.AsyncClient) -> None:
    answer = await intake.post("/events", json=[7] * 1_001, headers={"content-type": BATCH})

    assert answer.status_code == 413
    assert await inbox(db) == []


UNANSWERABLE: list[Callable[[], Json]] = [
    lambda: event("x" * 1_000, "e1", source="s" * 1_000),
    lambda: {"type": "\0", "source": "\0", "id": "\0", "specversion": "\0"},
    lambda: asking() | {"\0": "an attribute"},
    lambda: asking() | {"\ud83d": "an attribute"},
    lambda: asking() | {"id": "e\0"},
]


@pytest.mark.parametrize("strange", UNANSWERABLE)
async def test_what_the_databases_could_not_hold_is_kept_as_far_as_they_can(
    db: Database, intake: httpx.AsyncClient, strange: Callable[[], Json]
) -> None:
    answer = await intake.post("/events", content=json.dumps(strange()), headers={"content-type": ONE})

    assert (answer.status_code, answer.json()["status"]) == (422, "rejected")
    [kept] = await inbox(db)
    assert (kept.state, bool(kept.reason)) == (InboxState.rejected, True)
