"""Three months of a real shop, replayed by the command: every figure as an independent count of the same files has it."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from db.models import Base, Case, ClaimRow, ClaimState, InboxState, OrderLine
from domain.cases import CaseStatus
from settings import Settings
from tests.desk import Desk, desk_on
from tests.integration.kit import Json, inbox

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "online-retail"
MONTHS = [DATA / f"{month}.csv.gz" for month in ("2010-12", "2011-01", "2011-02")]

pytestmark = pytest.mark.skipif(
    not all(month.exists() for month in MONTHS), reason=f"the three months of UCI Online Retail are not in {DATA}"
)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Desk]:
    """The stack on the rules that are shipped, with a warehouse that counts every announced parcel at once."""
    settings = Settings(data_dir=tmp_path / "data", policies=ROOT / "policies")
    async with desk_on(settings, settle_seconds=0.1, auto_receive_seconds=0.1) as running:
        yield running


async def import_months(shop: Desk) -> str:
    """What `aftersales import` says on its standard output."""
    settings = shop.stack.settings
    given = {"AFTERSALES_DATA_DIR": str(settings.data_dir), "AFTERSALES_POLICIES": str(settings.policies)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from cli.main import main; main()", "import", "online-retail", *map(str, MONTHS)),
        cwd=ROOT,
        env=os.environ | given,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def all_ended(shop: Desk) -> dict[CaseStatus, int] | None:
    async with shop.stack.db.read() as session:
        found = await session.execute(select(Case.status, func.count()).group_by(Case.status))
    statuses = {status: count for status, count in found}  # noqa: C416
    return statuses if set(statuses) <= {CaseStatus.completed, CaseStatus.attention, CaseStatus.declined} else None


async def rows(shop: Desk) -> dict[str, int]:
    """How many rows every table has."""
    async with shop.stack.db.read() as session:
        tables = Base.metadata.sorted_tables
        return {table.name: int(await session.scalar(select(func.count()).select_from(table)) or 0) for table in tables}


async def pooled(shop: Desk) -> list[Json]:
    """The requested lines of the orphan pool."""
    orphans = await inbox(shop.stack.db, state=InboxState.orphan)
    assert {row.reason for row in orphans} == {"data.order_id: the request names no order"}
    return [line for row in orphans for line in json.loads(row.body)["data"]["lines"]]


async def test_three_months_of_a_real_shop_come_out_as_an_independent_count_has_them(shop: Desk) -> None:
    assert await import_months(shop) == "10698 accepted, 657 waiting\n"
    assert await shop.until(lambda: all_ended(shop), 300, lambda: "all cases to end") == {CaseStatus.completed: 591}

    async with shop.stack.db.read() as session:
        sold = (await session.execute(select(func.count(), func.sum(OrderLine.amount)).select_from(OrderLine))).one()
        sums = select(func.sum(Case.requested), func.sum(Case.approved), func.sum(Case.refunded))
        requested, approved, refunded = (await session.execute(sums)).one()
        taken = select(func.sum(ClaimRow.quantity), func.sum(ClaimRow.amount)).where(ClaimRow.state == ClaimState.taken)
        units, amount = (await session.execute(taken)).one()
    orphans = await pooled(shop)
    lost = (len(orphans), sum(line["quantity"] for line in orphans), sum(line["amount"] for line in orphans))

    assert tuple(sold) == (67_051 - 1, 1_574_863_38)  # without the one invoice of a gift alone, which nobody paid
    assert lost == (657, 14_614, 13_610_37)
    assert (units, approved) == (83_578, 103_212_15)
    assert (units + lost[1], requested + lost[2]) == (98_192, 116_935_23)
    assert refunded == amount == approved == (await shop.books())["succeeded_amount"]
    await shop.check_audit()

    before = await rows(shop)
    assert await import_months(shop) == "11355 duplicate\n"
    assert await rows(shop) == before
    assert (await shop.books())["succeeded_amount"] == approved
    await shop.check_audit()
