"""The sandbox as our adapters and our intake meet it: over HTTP, with every fault, and across kill -9."""

import asyncio
import base64
import json
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from pydantic import SecretStr
from standardwebhooks import Webhook

from domain.events import EVENT_TYPES
from sandbox.app import running
from sandbox.config import SandboxConfig
from web.server import serving

SECRET = "whsec_" + base64.b64encode(b"a secret of the tests only").decode()
STOP = "/warehouse/stops/shop:web:O1"
RETURN = "/warehouse/returns/rma:shop:web:R1"
LINES = [{"line_id": "L1", "sku": "S1", "quantity": 2}, {"line_id": "L2", "sku": "S2", "quantity": 1}]
ANNOUNCED = {"order_id": "O1", "merchant": "shop", "lines": LINES}
ONE_DAMAGED = [{"line_id": "L1", "quantity": 1, "grade": "damaged"}]
Json = dict[str, Any]


class Intake:
    """Takes webhooks as ours does: signature checked, data checked against the event's model."""

    def __init__(self) -> None:
        self.events: list[Json] = []
        self.refusals = 0
        """How many webhooks are still answered 503."""
        self.open = asyncio.Event()
        self.open.set()
        self.held = 0
        self._changed = asyncio.Condition()
        self.app = FastAPI()
        self.app.add_api_route("/events", self._take, methods=["POST"])

    async def _take(self, request: Request) -> Response:
        body = await request.body()
        event = Webhook(SECRET).verify(body, dict(request.headers))
        assert request.headers["content-type"] == "application/cloudevents+json"
        assert request.headers["webhook-id"] == event["id"]
        EVENT_TYPES[event["type"]].model_validate(event["data"], extra="forbid")
        if self.refusals:
            self.refusals -= 1
            async with self._changed:
                self._changed.notify_all()
            return Response(status_code=503)
        async with self._changed:
            self.held += 1
            self._changed.notify_all()
        await self.open.wait()
        async with self._changed:
            self.events.append(event)
            self._changed.notify_all()
        return Response()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(15), self._changed:
            await self._changed.wait_for(holds)

    async def wait_for(self, count: int) -> list[Json]:
        await self.until(lambda: len(self.events) >= count)
        return self.events


@pytest.fixture
async def intake() -> AsyncIterator[tuple[Intake, str]]:
    intake = Intake()
    async with serving(intake.app) as url:
        yield intake, f"{url}/events"


class Sandbox:
    def __init__(self, http: httpx.AsyncClient, intake: Intake) -> None:
        self.http = http
        self.intake = intake

    async def refund(self, key: str = "refund:c1:t1:1", ref: str = "pay_1", amount: int = 400, **other: Any) -> Any:
        body = {"payment_ref": ref, "captured": 1000, "amount": amount, "currency": "CNY"} | other
        return await self.http.post("/provider/refunds", json=body, headers={"Idempotency-Key": key})

    async def fault(self, fault: str, match: str = "pay_1", **how: Any) -> None:
        (await self.http.post("/faults", json={"match": match, "fault": fault} | how)).raise_for_status()

    async def get(self, path: str) -> Any:
        return (await self.http.get(path)).raise_for_status().json()

    async def until_answered(self, path: str, holds: Callable[[httpx.Response], bool]) -> None:
        async with asyncio.timeout(15):
            while True:
                if holds(await self.http.get(path)):
                    return
                await asyncio.sleep(0.02)

    async def books(self) -> Json:
        books: Json = await self.get("/provider/books")
        return books


@asynccontextmanager
async def run_sandbox(db: Path, intake: tuple[Intake, str], **settings: Any) -> AsyncIterator[Sandbox]:
    config = SandboxConfig(db=db, intake_url=intake[1], secret=SecretStr(SECRET), **settings)
    async with running(config) as url, httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as http:
        yield Sandbox(http, intake[0])


@pytest.fixture
async def sandbox(tmp_path: Path, intake: tuple[Intake, str]) -> AsyncIterator[Sandbox]:
    async with run_sandbox(tmp_path / "s.db", intake, settle_seconds=0.02, auto_receive_seconds=0.02) as sandbox:
        yield sandbox


@pytest.fixture
async def patient_sandbox(tmp_path: Path, intake: tuple[Intake, str]) -> AsyncIterator[Sandbox]:
    """Leaves time to change one's mind before the goods arrive."""
    async with run_sandbox(tmp_path / "s.db", intake, auto_receive_seconds=0.5) as sandbox:
        yield sandbox


def ids(events: list[Json]) -> list[str]:
    return [event["id"] for event in events]


# --- provider -----------------------------------------------------------------------------------------------------


async def test_a_refund_is_pending_then_succeeds_and_is_told_by_webhook(sandbox: Sandbox) -> None:
    made = (await sandbox.refund()).json()
    refund_id = made.pop("refund_id")
    assert made == {
        "key": "refund:c1:t1:1", "payment_ref": "pay_1", "amount": 400, "currency": "CNY", "state": "pending", "code": ""
    }  # fmt: skip
    [event] = await sandbox.intake.wait_for(1)
    assert (event["source"], event["type"]) == ("/sandbox/provider", "payment.refund_settled")
    assert event["id"] == f"{refund_id}-settled"
    assert event["data"]["refund_key"] == "refund:c1:t1:1"
    assert event["data"]["provider_ref"] == refund_id
    looked_up = await sandbox.get("/provider/refunds/refund:c1:t1:1")
    assert (looked_up["state"], looked_up["count"]) == ("succeeded", 1)


async def test_the_same_key_moves_money_once_and_with_another_content_is_a_conflict(sandbox: Sandbox) -> None:
    first, second = await sandbox.refund(), await sandbox.refund()
    assert first.json()["refund_id"] == second.json()["refund_id"]
    for other in ({"amount": 401}, {"captured": 999}, {"ref": "pay_2"}):
        reused = await sandbox.refund(**other)
        assert (reused.status_code, reused.json()["code"]) == (409, "key_reused")
    books = await sandbox.books()
    assert (books["refunds"], books["calls"], books["duplicated_keys"]) == (1, 5, 0)


async def test_what_would_exceed_the_captured_amount_is_declined(sandbox: Sandbox) -> None:
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(sandbox.refund(key=f"k{n}", amount=300)) for n in range(8)]
    answers = sorted(call.result().status_code for call in calls)
    assert answers == [200] * 3 + [422] * 5
    assert {call.result().json()["code"] for call in calls if call.result().status_code == 422} == {"over_refund"}
    assert (await sandbox.refund(key="rest", amount=100)).status_code == 200


async def test_a_request_that_does_not_fit_the_payment_is_declined(sandbox: Sandbox) -> None:
    await sandbox.refund()
    for other, code in (({"captured": 999}, "captured_mismatch"), ({"currency": "USD"}, "currency_mismatch")):
        declined = await sandbox.refund(key="k2", **other)
        assert (declined.status_code, declined.json()["code"]) == (422, code)
    for key, amount in (("no spaces", 1), ("k3", 0)):
        assert (await sandbox.refund(key=key, amount=amount)).json()["code"] == "invalid_request"
    assert (await sandbox.books())["refunds"] == 1


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [("refuse", 422, "card_closed"), ("error", 500, "internal"), ("rate_limit", 429, "rate_limited")],
)
async def test_a_refusal_moves_nothing_and_is_over_after_its_times(
    sandbox: Sandbox, fault: str, status: int, code: str
) -> None:
    await sandbox.fault(fault, times=2, seconds=1.2)
    for _ in range(2):
        refused = await sandbox.refund()
        assert (refused.status_code, refused.json()["code"]) == (status, code)
        assert refused.headers.get("retry-after") == ("2" if fault == "rate_limit" else None)
    assert (await sandbox.books())["refunds"] == 0
    assert (await sandbox.refund()).status_code == 200


async def test_a_refund_that_was_made_is_never_called_declined(sandbox: Sandbox) -> None:
    await sandbox.refund()
    await sandbox.fault("refuse", times=None)
    assert (await sandbox.refund()).status_code == 200
    assert (await sandbox.refund(key="k2")).status_code == 422


@pytest.mark.parametrize("fault", ["accept_then_drop", "accept_then_error", "garbage"])
async def test_a_lost_answer_leaves_a_refund_behind(sandbox: Sandbox, fault: str) -> None:
    await sandbox.fault(fault)
    if fault == "accept_then_drop":
        with pytest.raises(httpx.RemoteProtocolError):
            await sandbox.refund()
    elif fault == "accept_then_error":
        answer = await sandbox.refund()
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    else:
        answer = await sandbox.refund()
        assert answer.status_code == 200
        with pytest.raises(json.JSONDecodeError):
            answer.json()
    assert (await sandbox.get("/provider/refunds/refund:c1:t1:1"))["count"] == 1
    assert (await sandbox.refund()).status_code == 200
    await sandbox.intake.wait_for(1)
    books = await sandbox.books()
    assert (books["refunds"], books["succeeded"], books["succeeded_amount"]) == (1, 1, 400)


async def test_a_slow_provider_still_does_what_the_caller_gave_up_on(sandbox: Sandbox) -> None:
    await sandbox.fault("slow", seconds=0.6)
    with pytest.raises(httpx.ReadTimeout):
        await sandbox.http.post(
            "/provider/refunds",
            json={"payment_ref": "pay_1", "captured": 1000, "amount": 400, "currency": "CNY"},
            headers={"Idempotency-Key": "k"},
            timeout=0.1,
        )
    assert (await sandbox.books())["refunds"] == 0
    await sandbox.intake.wait_for(1)
    assert (await sandbox.books())["succeeded"] == 1


async def test_a_late_settlement_comes_after_one_that_was_asked_for_later(sandbox: Sandbox) -> None:
    await sandbox.fault("settle_later", seconds=0.5)
    await sandbox.refund(key="late")
    await sandbox.refund(key="prompt")
    events = await sandbox.intake.wait_for(2)
    assert [event["data"]["refund_key"] for event in events] == ["prompt", "late"]


async def test_a_refund_that_fails_later_gives_the_money_free_again(sandbox: Sandbox) -> None:
    await sandbox.fault("fail_later", seconds=0.5)
    made = (await sandbox.refund(amount=1000)).json()
    assert made["state"] == "pending"
    assert (await sandbox.refund(key="k2")).json()["code"] == "over_refund"
    [event] = await sandbox.intake.wait_for(1)
    assert event["type"] == "payment.refund_failed"
    assert event["data"]["code"] == "card_closed"
    looked_up = await sandbox.get("/provider/refunds/refund:c1:t1:1")
    assert (looked_up["state"], looked_up["code"]) == ("failed", "card_closed")
    assert (await sandbox.refund(key="k2")).status_code == 200
    listed = await sandbox.get("/provider/refunds?payment_ref=pay_1&state=failed")
    assert [refund["refund_id"] for refund in listed["refunds"]] == [made["refund_id"]]


async def test_a_forgetful_provider_refunds_twice_and_above_what_was_captured(sandbox: Sandbox) -> None:
    await sandbox.fault("forget_idempotency", times=None)
    await sandbox.fault("accept_over_refund", times=1)
    first, second = [(await sandbox.refund(amount=600)).json()["refund_id"] for _ in range(2)]
    assert first != second
    looked_up = await sandbox.get("/provider/refunds/refund:c1:t1:1")
    assert (looked_up["refund_id"], looked_up["count"]) == (second, 2)
    assert (await sandbox.books())["duplicated_keys"] == 1
    assert (await sandbox.refund(amount=600)).json()["code"] == "over_refund"


async def test_a_duplicated_webhook_comes_twice_under_one_id_and_once_under_another(sandbox: Sandbox) -> None:
    await sandbox.fault("duplicate_webhook")
    refund_id = (await sandbox.refund()).json()["refund_id"]
    told = ids(await sandbox.intake.wait_for(3))
    assert sorted(told) == [f"{refund_id}-settled", f"{refund_id}-settled", f"{refund_id}-settled-again"]


async def test_the_webhook_can_come_twice_before_the_call_returns(sandbox: Sandbox) -> None:
    await sandbox.fault("webhook_first")
    sandbox.intake.open.clear()
    call = asyncio.create_task(sandbox.refund())
    await sandbox.intake.until(lambda: sandbox.intake.held == 2)
    answered, _ = await asyncio.wait({call}, timeout=0.3)
    assert not answered
    sandbox.intake.open.set()
    made = (await call).json()
    assert made["state"] == "succeeded"
    assert ids(sandbox.intake.events) == [f"{made['refund_id']}-settled"] * 2


async def test_a_settlement_can_stay_untold(sandbox: Sandbox) -> None:
    await sandbox.fault("no_webhook", match="untold")
    await sandbox.refund(key="untold")
    await sandbox.refund(key="told")
    [event] = await sandbox.intake.wait_for(1)
    assert event["data"]["refund_key"] == "told"
    assert (await sandbox.books())["succeeded"] == 2


async def test_a_lookup_can_be_blind_for_a_while_and_down_for_a_time(sandbox: Sandbox) -> None:
    await sandbox.fault("lookup_blind", match="k1", seconds=0.8)
    await sandbox.fault("lookup_down", match="k2")
    await sandbox.refund(key="k1")
    await sandbox.refund(key="k2")
    assert (await sandbox.http.get("/provider/refunds/k1")).json()["code"] == "not_found"
    assert (await sandbox.http.get("/provider/refunds/k2")).status_code == 500
    assert (await sandbox.http.get("/provider/refunds/k2")).status_code == 200
    assert len((await sandbox.get("/provider/refunds"))["refunds"]) == 2
    await sandbox.until_answered("/provider/refunds/k1", lambda answer: answer.status_code == 200)


async def test_a_webhook_that_is_not_taken_is_sent_again_with_the_same_id(sandbox: Sandbox) -> None:
    sandbox.intake.refusals = 3
    refund_id = (await sandbox.refund()).json()["refund_id"]
    assert ids(await sandbox.intake.wait_for(1)) == [f"{refund_id}-settled"]
    assert sandbox.intake.refusals == 0


async def test_webhooks_that_hang_do_not_hold_up_settlements(sandbox: Sandbox) -> None:
    sandbox.intake.open.clear()
    for n in range(20):
        await sandbox.refund(key=f"k{n}", ref=f"pay_{n}")
    await sandbox.intake.until(lambda: sandbox.intake.held == 16)
    await sandbox.until_answered("/provider/books", lambda answer: answer.json()["succeeded"] == 20)
    assert sandbox.intake.held == 16
    sandbox.intake.open.set()
    assert len(set(ids(await sandbox.intake.wait_for(20)))) == 20


async def test_a_fault_strikes_by_whole_name_by_beginning_or_everyone(sandbox: Sandbox) -> None:
    for match, struck in (("pay_1", {"pay_1"}), ("pay_1*", {"pay_1", "pay_12"}), ("*", {"pay_1", "pay_12", "x"})):
        await sandbox.fault("error", match=match, times=None)
        refused = {ref for ref in ("pay_1", "pay_12", "x") if (await sandbox.refund(key=ref, ref=ref)).is_error}
        assert refused == struck
        assert [fault["match"] for fault in (await sandbox.get("/faults"))["faults"]] == [match]
        assert (await sandbox.http.delete("/faults")).json() == {"cleared": 1}


# --- warehouse ----------------------------------------------------------------------------------------------------


async def test_announced_goods_arrive_in_full_and_sellable(sandbox: Sandbox) -> None:
    first = await sandbox.http.put(RETURN, json=ANNOUNCED)
    assert first.json()["state"] == "expected"
    assert set(first.json()["address"]) == {"name", "phone", "line"}
    [event] = await sandbox.intake.wait_for(1)
    assert (event["source"], event["type"]) == ("/sandbox/warehouse", "warehouse.received")
    counted = [
        {"line_id": "L1", "quantity": 2, "grade": "sellable"},
        {"line_id": "L2", "quantity": 1, "grade": "sellable"},
    ]
    data = event["data"]
    assert data["lines"] == counted
    assert (data["receipt_id"], data["rma"], data["final"]) == ("rma.shop.web.R1.1", "rma:shop:web:R1", True)
    shown = await sandbox.get(RETURN)
    assert (shown["state"], shown["received"], shown["order_id"]) == ("received", counted, "O1")
    assert (await sandbox.http.put(RETURN, json=ANNOUNCED)).json()["state"] == "received"
    assert (await sandbox.http.put(RETURN, json=ANNOUNCED | {"order_id": "O2"})).status_code == 409
    refused = await sandbox.http.delete(RETURN)
    assert (refused.status_code, refused.json()["code"]) == (409, "already_received")


async def test_a_cancelled_return_receives_nothing(patient_sandbox: Sandbox) -> None:
    sandbox = patient_sandbox
    await sandbox.http.put(RETURN, json=ANNOUNCED)
    for _ in range(2):
        assert (await sandbox.http.delete(RETURN)).json()["state"] == "cancelled"
    await plan(sandbox, {"after_seconds": 0, "lines": ONE_DAMAGED})
    await sandbox.http.put("/warehouse/returns/other", json=ANNOUNCED)
    [event] = await sandbox.intake.wait_for(1)
    assert event["data"]["rma"] == "other"
    assert (await sandbox.get(RETURN))["received"] == []
    assert (await sandbox.http.get("/warehouse/returns/unknown")).status_code == 404
    assert (await sandbox.http.delete("/warehouse/returns/unknown")).status_code == 404


async def plan(sandbox: Sandbox, *deliveries: Json) -> None:
    body = {"rma": "rma:shop:web:R1", "deliveries": deliveries}
    (await sandbox.http.post("/warehouse/plans", json=body)).raise_for_status()


@pytest.mark.parametrize("planned_first", [True, False])
async def test_a_plan_replaces_the_automatic_delivery(patient_sandbox: Sandbox, planned_first: bool) -> None:
    sandbox = patient_sandbox
    sellable = [{"line_id": "L1", "quantity": 1, "grade": "sellable"}]
    deliveries = (
        {"after_seconds": 0, "lines": ONE_DAMAGED, "repeat": 3, "waybill": "SF1"},
        {"after_seconds": 0, "lines": sellable, "receipt_id": "fixed", "corrects": "rma.shop.web.R1.1"},
        {"after_seconds": 0.1, "lines": sellable, "final": True},
    )
    if planned_first:
        await plan(sandbox, *deliveries)
    await sandbox.http.put(RETURN, json=ANNOUNCED)
    if not planned_first:
        await plan(sandbox, *deliveries)
    await sandbox.http.put("/warehouse/returns/other", json=ANNOUNCED)
    events = await sandbox.intake.wait_for(6)
    receipts = {event["data"]["receipt_id"]: event["data"] for event in events}
    told = Counter(event["data"]["receipt_id"] for event in events)
    assert told == {"rma.shop.web.R1.1": 3, "fixed": 1, "rma.shop.web.R1.3": 1, "other.1": 1}
    assert len(set(ids(events))) == 6
    assert [receipt_id for receipt_id, data in receipts.items() if data["final"]] == ["rma.shop.web.R1.3", "other.1"]
    assert receipts["rma.shop.web.R1.1"]["waybill"] == "SF1"
    assert receipts["fixed"]["corrects"] == "rma.shop.web.R1.1"
    assert (await sandbox.get(RETURN))["received"] == [{"line_id": "L1", "quantity": 2, "grade": "sellable"}]


async def test_a_parcel_can_never_come(sandbox: Sandbox) -> None:
    await plan(sandbox)
    await sandbox.http.put(RETURN, json=ANNOUNCED)
    await sandbox.http.put("/warehouse/returns/other", json=ANNOUNCED)
    [event] = await sandbox.intake.wait_for(1)
    assert event["data"]["rma"] == "other"
    assert (await sandbox.get(RETURN))["state"] == "expected"


async def test_the_longest_rma_still_gets_a_receipt(sandbox: Sandbox) -> None:
    rma = "rma:" + "m" * 40 + ":" + "c" * 40 + ":" + "r" * 64
    await sandbox.http.put(f"/warehouse/returns/{rma}", json=ANNOUNCED)
    [event] = await sandbox.intake.wait_for(1)
    assert event["data"]["rma"] == rma


async def test_an_order_is_stopped_once_for_each_case(sandbox: Sandbox) -> None:
    ask = {"case_id": "shop:web:R1", "lines": [{"line_id": "L1", "quantity": 1}]}
    await sandbox.fault("stop_too_late", match="shop:web:O1")
    assert (await sandbox.http.put(STOP, json=ask)).json() == {"stopped": False, "reason": "label_printed"}
    assert (await sandbox.http.put(STOP, json=ask)).json() == {"stopped": True}
    await sandbox.fault("stop_too_late", match="shop:web:O1")
    assert (await sandbox.http.put(STOP, json=ask)).json() == {"stopped": True}
    other = ask | {"case_id": "shop:web:R2"}
    assert (await sandbox.http.put(STOP, json=other)).json()["stopped"] is False


async def test_a_warehouse_can_be_down_or_refuse(sandbox: Sandbox) -> None:
    ask = {"case_id": "shop:web:R1", "lines": [{"line_id": "L1", "quantity": 1}]}
    for path, name, body in ((RETURN, "rma:shop:web:R1", ANNOUNCED), (STOP, "shop:web:O1", ask)):
        await sandbox.fault("warehouse_down", match=name)
        await sandbox.fault("warehouse_refuse", match=name)
        answers = [await sandbox.http.put(path, json=body) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [503, 422, 200]
        assert answers[1].json()["code"] == "unknown_sku"


async def test_a_slow_warehouse_still_does_what_the_caller_gave_up_on(sandbox: Sandbox) -> None:
    await sandbox.fault("slow", match="*", seconds=0.2)
    with pytest.raises(httpx.ReadTimeout):
        await sandbox.http.put(RETURN, json=ANNOUNCED, timeout=0.05)
    [event] = await sandbox.intake.wait_for(1)
    assert event["data"]["rma"] == "rma:shop:web:R1"


# --- messages -----------------------------------------------------------------------------------------------------

MESSAGE = {
    "id": "m1", "case_id": "shop:web:R1", "template": "refund_paid", "recipient": "b1", "locale": "zh",
    "subject": "退款到账", "text": "您的退款已到账",
}  # fmt: skip


async def send(sandbox: Sandbox, webhook_id: str, secret: str = SECRET) -> int:
    body, now = json.dumps(MESSAGE), datetime.now(UTC)
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, now, body),
    }
    return (await sandbox.http.post("/messages", content=body, headers=headers)).status_code


async def test_a_message_is_kept_once_and_its_deliveries_are_counted(sandbox: Sandbox) -> None:
    await sandbox.fault("message_down", match="shop:web:R1")
    answers = [await send(sandbox, webhook_id) for webhook_id in ("w1", "w1", "w1", "w2")]
    assert answers == [503, 200, 200, 200]
    messages = (await sandbox.get("/messages?case_id=shop:web:R1"))["messages"]
    assert messages == [MESSAGE | {"count": 2}, MESSAGE | {"count": 1}]
    assert (await sandbox.get("/messages?case_id=other"))["messages"] == []


async def test_a_message_with_a_wrong_signature_is_not_taken(sandbox: Sandbox) -> None:
    assert await send(sandbox, "w1", secret="whsec_" + base64.b64encode(b"another").decode()) == 401
    assert (await sandbox.http.post("/messages", json=MESSAGE)).status_code == 401
    assert (await sandbox.get("/messages"))["messages"] == []


# --- kill and restart ---------------------------------------------------------------------------------------------


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def start(db: Path, port: int, intake_url: str) -> asyncio.subprocess.Process:
    options = {"port": port, "db": db, "intake-url": intake_url, "secret": SECRET}
    waits = {"settle-seconds": 1.5, "auto-receive-seconds": 1.5}
    arguments = [f"--{name}={value}" for name, value in (options | waits).items()]
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "sandbox", *arguments, cwd=root)
    async with asyncio.timeout(20), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                await http.get(f"http://127.0.0.1:{port}/health")
                return process
            except httpx.ConnectError:
                assert process.returncode is None
                await asyncio.sleep(0.05)


async def test_nothing_pending_is_lost_by_kill_9(tmp_path: Path, intake: tuple[Intake, str], free_port: int) -> None:
    process = await start(tmp_path / "s.db", free_port, intake[1])
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port}", trust_env=False) as http:
            sandbox = Sandbox(http, intake[0])
            await sandbox.fault("lookup_down", times=None)
            made = (await sandbox.refund()).json()
            await http.put(RETURN, json=ANNOUNCED)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        assert intake[0].events == []
        process = await start(tmp_path / "s.db", free_port, intake[1])
        events = await intake[0].wait_for(2)
        assert {event["type"] for event in events} == {"payment.refund_settled", "warehouse.received"}
        assert f"{made['refund_id']}-settled" in ids(events)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port}", trust_env=False) as http:
            assert (await http.get("/provider/refunds/refund:c1:t1:1")).status_code == 500
            assert (await Sandbox(http, intake[0]).books())["succeeded"] == 1
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_webhooks_wait_for_an_intake_across_a_restart(tmp_path: Path, intake: tuple[Intake, str]) -> None:
    intake[0].refusals = 10**6
    async with run_sandbox(tmp_path / "s.db", intake, settle_seconds=0) as sandbox:
        await sandbox.refund()
        await intake[0].until(lambda: intake[0].refusals < 10**6)
    intake[0].refusals = 0
    async with run_sandbox(tmp_path / "s.db", intake, settle_seconds=0):
        assert len(await intake[0].wait_for(1)) == 1
