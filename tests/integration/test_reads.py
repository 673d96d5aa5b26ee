"""The reading commands, as a person types them, against one running stack in which things went well, and wrong."""

import asyncio
import io
import json
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from sqlalchemy import update

from cli.main import main
from db.models import Case, EntryLineRow
from domain.cases import CaseStatus
from domain.ledger import Account
from engine.logs import configure
from settings import Settings
from tests.desk import Desk, counted, desk_on, event, policies_with, receipt_event, request_event

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUYER = {"buyer_id": "b-7", "name": "张三丰", "email": "sanfeng@example.com", "phone": "13912345678"}
LARGE = [{"line_id": "1", "sku": "POT-1", "title": "紫砂壶", "quantity": 1, "amount": 99_000}]
PERSONAL = ("张三丰", "sanfeng", "13912345678", "开裂了")


class Said(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def type_in(data_dir: Path, *words: str, **environment: str) -> Said:
    """What `aftersales words…` prints and exits with."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.delenv("DATABASE_URL", raising=False)
        patch.setattr(sys, "argv", ["aftersales", *words])
        for name, value in ({"AFTERSALES_DATA_DIR": str(data_dir), "COLUMNS": "220"} | environment).items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
    return Said(int(ended.value.code or 0), out.getvalue(), err.getvalue())


async def typed(desk: Desk, *words: str, **environment: str) -> Said:
    settings = desk.stack.settings
    environment |= {"AFTERSALES_POLICIES": str(settings.policies)}
    return await asyncio.to_thread(type_in, settings.data_dir, *words, **environment)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """Cases: PAID completed, REFUSED by the provider, REVIEW for a person, SHORT a return that came in part."""
    folder = tmp_path_factory.mktemp("reads")
    configure(Settings(data_dir=folder / "data", log_level="warning"))  # as every command does: what is printed is what is read
    policies = policies_with(folder / "policies", review={"within": "1h", "alarm_before": "1m"})
    async with desk_on(Settings(data_dir=folder / "data", policies=policies), settle_seconds=0.05) as running:
        await _live(running)
        yield running


async def _live(desk: Desk) -> None:
    split = [
        {"tender_id": "card", "kind": "card", "provider": "sandbox", "payment_ref": "pay-card", "amount": 10_000},
        {"tender_id": "wallet", "kind": "wallet", "provider": "sandbox", "payment_ref": "pay-wallet", "amount": 10_000},
    ]
    await desk.fault("pay-card", "refuse", times=None)
    await desk.plan("lanhua:tmall:SHORT", {"lines": counted(sellable=1), "after_seconds": 0, "final": True})
    for order, more in {
        "PAID": {},
        "REFUSED": {"tenders": split, "lines": [{"line_id": "1", "sku": "TEA-1", "quantity": 2, "amount": 20_000}]},
        "REVIEW": {"lines": LARGE},
        "SHORT": {},
    }.items():
        await desk.order(f"O-{order}", buyer=BUYER, **more)
        units = [{"line_id": "1", "quantity": 2}] if order == "SHORT" else [{"line_id": "1", "quantity": 1}]
        kind = "return" if order == "SHORT" else "refund"
        await desk.request(f"O-{order}", order, kind=kind, lines=units, note="壶开裂了")
    lost = request_event("O-LOST", "LOST", lines=[{"sku": "TEA-1", "quantity": 2, "amount": 4_200}])
    del lost["data"]["order_id"]
    await desk.tell(
        receipt_event("X-1", counted(sellable=3), waybill="SF-NOBODY"),
        lost,
        event("order.paid", "bad-1", merchant="lanhua"),
    )
    await desk.intake.post("/events", content=b"not json", headers={"content-type": "application/json"})
    await desk.status("lanhua:tmall:PAID", CaseStatus.completed)
    await desk.status("lanhua:tmall:SHORT", CaseStatus.completed)
    await desk.stuck("lanhua:tmall:REFUSED", "refund_declined")
    await desk.status("lanhua:tmall:REVIEW", CaseStatus.in_review)


async def test_cases_come_newest_first_with_how_many_more_there_are(desk: Desk) -> None:
    everything = (await typed(desk, "cases", "--json")).rows
    said = await typed(desk, "cases", "--json", "--limit", "2")

    numbers = [row["case_no"] for row in everything]
    assert numbers == sorted(numbers, reverse=True)
    assert said.rows == everything[:2]
    assert f"{len(numbers) - 2} more" in said.err and f"--limit {len(numbers)}" in said.err


async def test_a_case_in_a_list_tells_amounts_in_minor_units_and_its_names(desk: Desk) -> None:
    [row] = (await typed(desk, "cases", "--json", "--status", "attention")).rows

    told = {name: row[name] for name in ("case_no", "order_id", "workflow_id", "kind", "currency", "attention", "closed_at")}
    assert told == {
        "case_no": (await desk.case("lanhua:tmall:REFUSED")).case_no,
        "order_id": "O-REFUSED",
        "workflow_id": "case/lanhua:tmall:REFUSED",
        "kind": "refund",
        "currency": "CNY",
        "attention": "refund_declined",
        "closed_at": None,
    }
    assert (row["requested"], row["approved"], row["refunded"]) == (10_000, 10_000, 0)
    assert row["tracks"]["money"] == "stuck"


@pytest.mark.parametrize(
    ("narrowing", "references"),
    [
        (("--status", "in_review"), {"REVIEW"}),
        (("--kind", "return"), {"SHORT"}),
        (("--attention",), {"REFUSED"}),
        (("--merchant", "lanhua", "--status", "completed", "--kind", "refund"), {"PAID"}),
        (("--merchant", "nobody"), set()),
    ],
)
async def test_cases_can_be_narrowed(desk: Desk, narrowing: tuple[str, ...], references: set[str]) -> None:
    rows = (await typed(desk, "cases", "--json", *narrowing)).rows

    assert {row["case_id"].rpartition(":")[2] for row in rows} == references


async def test_the_list_for_people_shows_money_as_money_and_the_cause(desk: Desk) -> None:
    line = next(line for line in (await typed(desk, "cases")).out.splitlines() if "O-REFUSED" in line)

    assert "attention: refund_declined" in line
    assert "CNY 100.00" in line and "CNY 0.00" in line


async def test_a_case_whole_tells_what_came_back_and_what_is_missing(desk: Desk) -> None:
    [page] = (await typed(desk, "case", "lanhua:tmall:SHORT", "--json")).rows

    [line] = page["lines"]
    assert (line["asked"], line["received"], line["missing"]) == (2, {"sellable": 1}, 1)
    assert (line["claim"], line["claimed"], line["claimed_amount"]) == ("taken", 1, 5_000)
    assert page["receipts"][0]["counts"] is True
    assert (page["decision"]["verdict"], page["decision"]["version"]) == ("approve", "test-1")
    assert {(effect["kind"], effect["state"]) for effect in page["effects"]} == {("rma", "succeeded"), ("refund", "succeeded")}
    assert [message["template"] for message in page["messages"]] == ["return_address", "refund_paid"]
    assert all(sum(line["amount"] for line in entry["lines"]) == 0 for entry in page["entries"])
    assert {"Goods received", "Refund granted", "Refund paid"} == {entry["text"] for entry in page["entries"]}
    assert page["timeline"][-1]["step"] == "case.completed"


async def test_a_case_is_found_by_its_number_and_shown_with_all_its_parts(desk: Desk) -> None:
    number = (await desk.case("lanhua:tmall:SHORT")).case_no

    shown = (await typed(desk, "case", number.lower())).out

    for part in ("refunded CNY 50.00", "1 sellable", "Assets:Payment clearing", "refund_paid", "rule auto_approve.0"):
        assert part in shown
    assert "to type next" not in shown  # it is over


async def test_the_command_that_a_case_in_review_names_decides_it(desk: Desk) -> None:
    await desk.order("O-LARGE", lines=LARGE)
    case = await desk.request("O-LARGE", "LARGE")
    await desk.status(case, CaseStatus.in_review)
    [page] = (await typed(desk, "case", case, "--json")).rows
    decline = next(command for command in page["commands"] if " decline " in command)

    said = await typed(desk, *shlex.split(decline)[1:], AFTERSALES_USER="li")

    assert said.status == 0, said.err
    await desk.status(case, CaseStatus.declined)
    [page] = (await typed(desk, "case", case, "--json")).rows
    assert (page["decision"]["verdict"], page["decision"]["by"]) == ("decline", "li")
    assert ("person.decline", "li") in [(note["step"], note["actor"]) for note in page["timeline"]]


async def test_a_stuck_case_names_each_way_out_and_only_tenders_that_are_left(desk: Desk) -> None:
    [page] = (await typed(desk, "case", "lanhua:tmall:REFUSED", "--json")).rows

    replay = f"aftersales replay {page['case_no']}"
    assert page["commands"] == [
        f"{replay} --dry-run",
        f'{replay} --action retry --reason "…"',
        f'{replay} --action amend --tender wallet --reason "…"',
        f'{replay} --action settle-by-hand --voucher NUMBER --reason "…"',
        f'{replay} --action abandon --reason "…"',
        f"aftersales history {page['case_no']}",
    ]
    assert page["needs"]["detail"].startswith("refund:lanhua:tmall:REFUSED:card:1: card_closed")


async def test_stuck_groups_by_cause_with_money_at_risk_and_what_to_do_in_both_languages(desk: Desk) -> None:
    said = await typed(desk, "stuck")

    summary = next(line for line in said.out.splitlines() if line.startswith("refund_declined"))
    assert summary.replace("│", " ").split()[:4] == ["refund_declined", "1", "CNY", "100.00"]
    assert "支付渠道拒绝退款" in said.out and "nothing moved" in said.out
    assert "can: retry, amend, settle-by-hand, abandon" in said.out
    assert "aftersales replay --cause refund_declined --dry-run" in said.out


async def test_stuck_can_be_read_by_programs_and_narrowed_to_a_cause(desk: Desk) -> None:
    [row] = (await typed(desk, "stuck", "--json", "--cause", "refund_declined")).rows
    none = await typed(desk, "stuck", "--json", "--cause", "provider_down")

    assert (row["case_id"], row["step"], row["at_risk"]) == ("lanhua:tmall:REFUSED", "refund", 10_000)
    assert row["actions"] == ["retry", "amend", "settle-by-hand", "abandon"]
    assert all(row[name] for name in ("since", "en", "zh", "todo_en", "todo_zh"))
    assert none.out == ""


async def test_the_orphan_pool_adds_up_its_units_and_amounts(desk: Desk) -> None:
    rows = (await typed(desk, "orphans", "--json")).rows
    shown = (await typed(desk, "orphans")).out

    assert [(row["type"], row["units"], row["amount"], row["currency"]) for row in rows] == [
        ("warehouse.received", 3, 0, ""),
        ("aftersale.requested", 2, 4_200, "CNY"),
    ]
    assert "waybill SF-NOBODY belongs to no case" in rows[0]["reason"]
    assert "total: 2 events, 5 units, CNY 42.00" in shown


async def test_the_inbox_shows_what_was_refused_why_and_as_it_came(desk: Desk) -> None:
    rejected = (await typed(desk, "inbox", "--state", "rejected", "--json")).rows
    bad = next(row["id"] for row in rejected if row["reason"].startswith("data.channel: Field required"))
    broken = next(row["id"] for row in rejected if "not JSON" in row["reason"])

    assert json.loads((await typed(desk, "inbox", "--id", str(bad))).out)["id"] == "bad-1"
    assert json.loads((await typed(desk, "inbox", "--id", str(broken))).out) == "not json"
    newest = await typed(desk, "inbox", "--state", "rejected", "--limit", "1", "--json")
    assert [row["id"] for row in newest.rows] == [rejected[0]["id"]]
    assert f"{len(rejected) - 1} more" in newest.err


async def test_what_an_outsider_writes_is_shown_as_it_is(desk: Desk) -> None:
    await desk.tell(event("[/b]", "markup-1"))

    said = await typed(desk, "inbox", "--limit", "1")

    assert "[/b]" in said.out


async def test_nothing_personal_is_shown_of_any_case(desk: Desk) -> None:
    commands = [["cases"], ["stuck"], ["orphans"], ["inbox"]]
    for reference in ("PAID", "REFUSED", "REVIEW", "SHORT"):
        commands += [["case", f"lanhua:tmall:{reference}"], ["history", f"lanhua:tmall:{reference}"]]
    for command in commands:
        for form in ([], ["--json"]):
            said = await typed(desk, *command, *form)
            assert said.status == 0, said.err
            assert not [word for word in PERSONAL if word in said.out], command


async def test_the_history_ends_with_what_the_case_waits_for_and_until_when(desk: Desk) -> None:
    case = await desk.case("lanhua:tmall:REVIEW")

    said = await typed(desk, "history", case.case_no)
    last = (await typed(desk, "history", case.case_no, "--json")).rows[-1]

    assert case.deadline is not None
    assert f"now in_review: waits for a person to decide, until {case.deadline:%Y-%m-%d %H:%M:%S} UTC" in said.out
    assert (last["step"], last["until"]) == ("now", case.deadline.isoformat().replace("+00:00", "Z"))


async def test_the_history_of_a_stuck_case_tells_the_refusal_and_that_a_person_is_needed(desk: Desk) -> None:
    said = await typed(desk, "history", "lanhua:tmall:REFUSED")

    assert "CNY 100.00 over tender card: declined card_closed" in said.out
    assert "now attention: waits for a person (refund: refund_declined" in said.out


async def test_the_audit_is_clean_and_names_what_is_not(desk: Desk) -> None:
    clean = await typed(desk, "audit", "--json")
    assert clean.status == 0, clean.out
    assert {row["checked"] > 0 for row in clean.rows} == {True}

    await _alter(desk, 1)
    broken = await typed(desk, "audit")
    await _alter(desk, -1)

    assert broken.status == 1
    assert "violated: grant:lanhua:tmall:PAID:1: 2 lines add up to 1" in broken.err


async def _alter(desk: Desk, by: int) -> None:
    async with desk.stack.db.write() as session:
        row = (EntryLineRow.entry_key == "grant:lanhua:tmall:PAID:1", EntryLineRow.account == Account.sales_returns)
        await session.execute(update(EntryLineRow).where(*row).values(amount=EntryLineRow.amount + by))


async def test_records_can_be_read_while_the_server_is_away_and_only_the_rest_says_so(desk: Desk) -> None:
    away = {"TEMPORAL_ADDRESS": "127.0.0.1:1"}

    for command in (["cases"], ["stuck"], ["orphans"], ["inbox"], ["case", "lanhua:tmall:PAID"]):
        assert (await typed(desk, *command, **away)).status == 0, command
    for command in (["history", "lanhua:tmall:PAID"], ["audit"]):
        said = await typed(desk, *command, **away)
        assert (said.status, said.out) == (2, "")
        assert said.err.count("\n") == 1 and "no Temporal server at 127.0.0.1:1" in said.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("case", "AS-2026-999999"), "there is no case AS-2026-999999"),
        (("history", "lanhua:tmall:NOBODY"), "there is no case lanhua:tmall:NOBODY"),
        (("inbox", "--id", "999999"), "there is no inbox row 999999"),
        (("stuck", "--cause", "bad_luck"), "there are review_overdue, "),
    ],
)
async def test_what_does_not_exist_is_said_in_one_line(desk: Desk, words: tuple[str, ...], reason: str) -> None:
    said = await typed(desk, *words)

    assert (said.status, said.out) == (2, "")
    assert said.err.count("\n") == 1
    assert said.err.startswith("aftersales: ") and reason in said.err


@pytest.mark.parametrize(("option", "allowed"), [("--status", "in_review"), ("--kind", "return")])
async def test_a_misspelt_narrowing_names_what_is_allowed(desk: Desk, option: str, allowed: str) -> None:
    said = await typed(desk, "cases", option, "nonsense")

    assert said.status == 2
    assert "nonsense" in said.err and allowed in said.err


@pytest.mark.parametrize(
    "words", [("cases",), ("case", "x"), ("history", "x"), ("stuck",), ("orphans",), ("inbox",), ("audit",)]
)
async def test_without_records_every_command_says_how_to_begin(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = await asyncio.to_thread(type_in, tmp_path / "empty", *words)

    assert (said.status, said.out) == (2, "")
    assert said.err.count("\n") == 1 and "aftersales up" in said.err
    assert not (tmp_path / "empty").exists()


async def test_a_case_that_the_server_has_forgotten_says_that_histories_are_not_kept_for_ever(desk: Desk) -> None:
    await _rename(desk, "lanhua:tmall:PAID", "lanhua:tmall:OLD")
    said = await typed(desk, "history", "lanhua:tmall:OLD")
    await _rename(desk, "lanhua:tmall:OLD", "lanhua:tmall:PAID")

    assert said.status == 2
    assert "has no history of case/lanhua:tmall:OLD" in said.err


async def _rename(desk: Desk, old: str, new: str) -> None:
    async with desk.stack.db.write() as session:
        await session.execute(update(Case).where(Case.case_id == old).values(case_id=new))
