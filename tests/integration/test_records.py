"""The projection of a case, its claims and its books in both databases: newer stays, twice is once."""

import asyncio

import pytest
from sqlalchemy import select

from activities.registration import Registration
from db import cases, ledger
from db.models import ClaimState, NoteRow
from db.session import Database
from domain.cases import CaseRequest, CaseStatus, Claim, Progress, Tracks, TrackState
from domain.errors import Invariant, NotFound
from domain.ledger import Account, Entry, Line
from tests.desk import case_id, now
from tests.integration.kit import opened, policies, progress

CASE = case_id("R1")
CLAIM = Claim(line_id="1", quantity=1, amount=5_000)


async def store(db: Database, told: Progress) -> None:
    async with db.write() as session:
        await cases.store(session, told)


async def registered(db: Database, *references: str) -> list[CaseRequest]:
    requests = await opened(db, "O1", *references)
    for request in requests:
        await Registration(db, policies()).register(request)
    return requests


async def claim_of(db: Database, reference: str) -> tuple[ClaimState, int, int]:
    async with db.read() as session:
        [row] = await cases.claims_of(session, case_id(reference))
    return row.state, row.quantity, row.amount


async def test_an_older_state_never_overwrites_a_newer_one_but_its_notes_are_kept(db: Database) -> None:
    await opened(db, "O1", "R1")
    waiting = Tracks(money=TrackState.awaiting_settlement)
    await store(db, progress(CASE, "newer", revision=5, tracks=waiting, approved=5_000))

    await store(db, progress(CASE, "older", revision=3, approved=1))

    async with db.read() as session:
        case = await cases.named(session, CASE)
        notes = (await session.scalars(select(NoteRow).order_by(NoteRow.seq))).all()
    assert (case.revision, case.approved, case.status) == (5, 5_000, CaseStatus.awaiting_settlement)
    assert [note.text for note in notes] == ["older", "newer"]


async def test_the_same_progress_stored_twice_is_stored_once(db: Database) -> None:
    await opened(db, "O1", "R1")
    told = progress(CASE, "one", "two", revision=1, approved=7)

    await asyncio.gather(store(db, told), store(db, told))

    async with db.read() as session:
        notes = (await session.scalars(select(NoteRow.text).order_by(NoteRow.seq))).all()
        case = await cases.named(session, CASE)
    assert notes == ["one", "two"]
    assert (case.revision, case.approved, case.closed_at) == (1, 7, None)


async def test_an_end_without_anything_taken_gives_the_claims_back(db: Database) -> None:
    first, _ = await registered(db, "R1", "R2")
    assert await claim_of(db, "R1") == (ClaimState.reserved, 1, 5_000)

    ended = progress(CASE, "expired", revision=9, outcome=CaseStatus.expired)
    await store(db, ended)

    assert await claim_of(db, "R1") == (ClaimState.released, 1, 5_000)
    async with db.read() as session:
        assert await cases.claims_on(session, first.order_key, besides=case_id("R2")) == {}
        case = await cases.named(session, CASE)
    assert (case.status, case.closed_at) == (CaseStatus.expired, ended.at)


async def test_an_end_keeps_what_was_taken_at_its_final_amount(db: Database) -> None:
    [request] = await registered(db, "R1")
    taken = CLAIM.model_copy(update={"amount": 2_500})

    await store(db, progress(CASE, revision=9, outcome=CaseStatus.completed, refunded=2_500, taken=(taken,)))

    assert await claim_of(db, "R1") == (ClaimState.taken, 1, 2_500)
    async with db.read() as session:
        assert await cases.claims_on(session, request.order_key, besides="") == {"1": [taken]}


async def test_a_case_is_found_by_its_id_and_by_its_number_and_by_nothing_else(db: Database) -> None:
    await opened(db, "O1", "R1")

    async with db.read() as session:
        case = await cases.named(session, CASE)
        assert (await cases.named(session, f" {case.case_no.lower()} ")).case_id == CASE
        for name in ("AS-2026-999999", f"AS-2026-{10**30}", "R1", "AS-2026-"):
            with pytest.raises(NotFound, match="there is no case"):
                await cases.named(session, name)


def entry(amount: int = 100) -> Entry:
    lines = (Line(account=Account.stock, amount=amount), Line(account=Account.goods_sold, amount=-amount))
    return Entry(key="goods:1", case_id=CASE, at=now(), text="Goods received", currency="CNY", lines=lines)


async def test_an_entry_posted_twice_even_at_once_is_posted_once(db: Database) -> None:
    async def post(one: Entry) -> None:
        async with db.write() as session:
            await ledger.post(session, [one])

    await asyncio.gather(post(entry()), post(entry()), post(entry(999)))

    async with db.read() as session:
        [posted] = await ledger.of_case(session, CASE)
        assert await ledger.held(session, Account.stock, CASE) == posted.lines[0].amount
    assert len(posted.lines) == 2


async def test_an_entry_taken_back_twice_is_taken_back_once_and_one_that_is_not_there_never(db: Database) -> None:
    async with db.write() as session:
        await ledger.post(session, [entry()])
    for _ in range(2):
        async with db.write() as session:
            await ledger.reverse(session, "goods:1", now(), "Receipt corrected")

    async with db.read() as session:
        assert [one.key for one in await ledger.of_case(session, CASE)] == ["goods:1", "reverse:goods:1"]
        assert await ledger.held(session, Account.stock, CASE) == 0
        with pytest.raises(Invariant, match="there is no entry goods:2 to take back"):
            await ledger.reverse(session, "goods:2", now(), "Receipt corrected")


async def test_a_failed_commit_leaves_nothing_of_itself(db: Database) -> None:
    with pytest.raises(RuntimeError):
        async with db.write() as session:
            await ledger.post(session, [entry()])
            raise RuntimeError("the process has second thoughts")

    async with db.read() as session:
        assert await ledger.find(session, "goods:1") is None
