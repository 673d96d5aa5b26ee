"""How tests speak to a running stack: as the shop, the buyer, the warehouse, the provider and the people would."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml
from sqlalchemy import select
from temporalio.api.enums.v1 import WorkflowTaskFailedCause

from cli.audit import audit
from cli.stack import Stack, stack
from db import cases, effects, ledger
from db.models import Case, EffectRow, InboxRow, InboxState
from domain.cases import Action, CaseStatus, workflow_id
from domain.effects import EffectKind
from domain.ledger import Entry
from domain.policy import Verdict
from domain.resolution import Judgement, Resolution
from engine.client import connect
from settings import Settings

MERCHANT, CHANNEL = "lanhua", "tmall"


def now() -> datetime:
    return datetime.now(UTC)


def event(type_: str, id_: str, source: str = "/shop", **data: Any) -> dict[str, Any]:
    """A CloudEvent as JSON."""
    return {"specversion": "1.0", "id": id_, "source": source, "type": type_, "data": data}


def case_id(reference: str) -> str:
    return f"{MERCHANT}:{CHANNEL}:{reference}"


def order_events(
    order_id: str,
    *,
    lines: list[dict[str, Any]] | None = None,
    tenders: list[dict[str, Any]] | None = None,
    shipped: bool = True,
    delivered: bool = True,
    **more: Any,
) -> list[dict[str, Any]]:
    """The events of an order: by default two units of one line for CNY 100.00, paid by card, delivered yesterday."""
    lines = lines or [{"line_id": "1", "sku": "TEA-1", "quantity": 2, "amount": 10_000}]
    total = sum(line["amount"] for line in lines)
    card = {"tender_id": "card", "kind": "card", "provider": "sandbox", "payment_ref": f"pay-{order_id}", "amount": total}
    of = {"merchant": MERCHANT, "channel": CHANNEL, "order_id": order_id}
    yesterday = (now() - timedelta(days=1)).isoformat()
    buyer = {"buyer_id": f"b-{order_id}", "email": "buyer@example.com"}
    paid = {"currency": "CNY", "placed_at": yesterday, "buyer": buyer, "lines": lines, "tenders": tenders or [card]}
    told = [event("order.paid", f"{order_id}-paid", **of, **(paid | more))]
    if shipped:
        told.append(event("order.shipped", f"{order_id}-shipped", **of, waybill=f"SF{order_id}", shipped_at=yesterday))
    if shipped and delivered:
        told.append(event("order.delivered", f"{order_id}-delivered", **of, delivered_at=yesterday))
    return told


def request_event(
    order_id: str, reference: str, *, kind: str = "refund", id_: str | None = None, **more: Any
) -> dict[str, Any]:
    """A request; by default for one of the two units."""
    data = {
        "merchant": MERCHANT,
        "channel": CHANNEL,
        "reference": reference,
        "kind": kind,
        "order_id": order_id,
        "currency": "CNY",
        "reason": "quality",
        "lines": [{"line_id": "1", "quantity": 1}],
        "requested_at": "2026-11-20T08:00:00Z",
    }
    return event("aftersale.requested", id_ or f"{reference}-requested", **(data | more))


def counted(line_id: str = "1", **by_grade: int) -> list[dict[str, Any]]:
    """Lines of a receipt: `counted(sellable=1, damaged=2)`."""
    return [{"line_id": line_id, "quantity": quantity, "grade": grade} for grade, quantity in by_grade.items()]


def receipt_event(receipt_id: str, lines: list[dict[str, Any]], *, id_: str | None = None, **more: Any) -> dict[str, Any]:
    """What the warehouse counted; `more` names the RMA or the waybill."""
    data = {"receipt_id": receipt_id, "warehouse": "hz-1", "lines": lines, "received_at": now().isoformat(), **more}
    return event("warehouse.received", id_ or f"{receipt_id}-received", source="/wms", **data)


def policies_with(folder: Path, **changes: Any) -> Path:
    """A folder with the tests' policy, changed by `payment={"unknown_for": "1s"}` and the like."""
    policy = yaml.safe_load((Path(__file__).parent / "policies" / "default.yaml").read_text("utf-8"))
    for name, change in changes.items():
        policy[name] = policy[name] | change if isinstance(change, dict) else change
    folder.mkdir()
    (folder / "changed.yaml").write_text(yaml.safe_dump(policy), "utf-8")
    return folder


def fact(type_: str, reference: str, *, id_: str | None = None, **more: Any) -> dict[str, Any]:
    """An event about a case."""
    data = {"merchant": MERCHANT, "channel": CHANNEL, "reference": reference, **more}
    return event(type_, id_ or f"{reference}-{type_}", **data)


@dataclass
class Desk:
    """A running stack with HTTP clients to its intake and its sandbox."""

    stack: Stack
    intake: httpx.AsyncClient
    sandbox: httpx.AsyncClient
    told: list[dict[str, Any]] = field(default_factory=list)

    # What the outside does

    async def tell(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """Post events to the intake, one after the other; their answers."""
        answers = []
        for one in events:
            answer = await self.intake.post("/events", json=one)
            answers.append(answer.json() | {"http": answer.status_code})
        return answers

    async def order(self, order_id: str, **more: Any) -> None:
        for answer in await self.tell(*order_events(order_id, **more)):
            assert answer["status"] == "accepted", answer

    async def request(self, order_id: str, reference: str, **more: Any) -> str:
        """Request, and expect it to be taken; the case id."""
        [answer] = await self.tell(request_event(order_id, reference, **more))
        assert answer["status"] == "accepted", answer
        return case_id(reference)

    async def fault(self, match: str, fault: str, *, times: int | None = 1, seconds: float = 0) -> None:
        body = {"match": match, "fault": fault, "times": times, "seconds": seconds}
        (await self.sandbox.post("/faults", json=body)).raise_for_status()

    async def plan(self, rma: str, *deliveries: dict[str, Any]) -> None:
        """What the warehouse will find of a return; no delivery means that the parcel never comes."""
        (await self.sandbox.post("/warehouse/plans", json={"rma": rma, "deliveries": list(deliveries)})).raise_for_status()

    # What people do

    async def decide(self, case: str, verdict: Verdict, by: str = "li") -> None:
        await self.stack.starter.decide(case, Judgement(verdict=verdict, by=by, reason="seen the photos"))

    async def resolve(self, case: str, action: Action, by: str = "li", **more: Any) -> None:
        await self.stack.starter.resolve(case, Resolution(action=action, by=by, reason="looked at it", **more))

    # What can be seen

    async def case(self, case: str) -> Case:
        async with self.stack.db.read() as session:
            return await cases.named(session, case)

    async def status(self, case: str, *wanted: CaseStatus, within: float = 20) -> Case:
        """Wait until the case shows one of these statuses."""

        async def there() -> Case | None:
            found = await self.case(case)
            return found if found.status in wanted else None

        shown: Case = await self.until(there, within, lambda: f"{case} to be {' or '.join(wanted)}")
        return shown

    async def stuck(self, case: str, cause: str, within: float = 20) -> Case:
        """Wait until the case needs a person, and expect it to say `cause`."""
        found = await self.status(case, CaseStatus.attention, within=within)
        assert found.attention is not None
        assert found.attention.cause == cause, found.attention
        return found

    async def orphans(self) -> list[str]:
        """Why each event in the orphan pool is there, oldest first."""
        async with self.stack.db.read() as session:
            query = select(InboxRow.reason).where(InboxRow.state == InboxState.orphan).order_by(InboxRow.id)
            return list(await session.scalars(query))

    async def effects(self, case: str, kind: EffectKind | None = None) -> list[EffectRow]:
        async with self.stack.db.read() as session:
            return list(await effects.of_case(session, case, kind))

    async def entries(self, case: str) -> list[Entry]:
        async with self.stack.db.read() as session:
            return list(await ledger.of_case(session, case))

    async def booked(self, case: str) -> dict[str, dict[str, int]]:
        """The case's journal as {key: {account: amount}}, with `*` for the case id in the keys."""
        return {
            entry.key.replace(case, "*"): {line.account.value: line.amount for line in entry.lines}
            for entry in await self.entries(case)
        }

    async def refunds_of(self, payment_ref: str) -> list[dict[str, Any]]:
        """The provider's own books of one payment."""
        found = (await self.sandbox.get("/provider/refunds", params={"payment_ref": payment_ref})).json()["refunds"]
        return list(found)

    async def books(self) -> dict[str, Any]:
        return dict((await self.sandbox.get("/provider/books")).json())

    async def messages(self, case: str) -> list[tuple[str, str, int]]:
        """(template, recipient, times delivered) as the receiver saw them."""
        found = (await self.sandbox.get("/messages", params={"case_id": case})).json()["messages"]
        return [(one["template"], one["recipient"], one["count"]) for one in found]

    async def check_audit(self) -> None:
        """Every invariant holds, and each was checked; and no process stumbled over its own history."""
        checks = await audit(self.stack.db, self.stack.starter)
        assert [violation for check in checks for violation in check.violations] == []
        assert {check.invariant for check in checks if check.checked == 0} <= _MAY_BE_EMPTY
        assert await self.failed_tasks() == []

    async def failed_tasks(self) -> list[str]:
        """Workflow tasks of any case that failed: what raises in a process, or cannot be replayed, shows only there."""
        client = await connect(self.stack.settings, address=self.stack.server.address)
        async with self.stack.db.read() as session:
            ids = (await session.scalars(select(Case.case_id))).all()
        histories = [await client.get_workflow_handle(workflow_id(id_)).fetch_history() for id_ in ids]
        failed = [(h.workflow_id, e.workflow_task_failed_event_attributes) for h in histories for e in h.events]
        return [f"{id_}: {task.failure.message}" for id_, task in failed if task.cause not in _HARMLESS]

    async def until(
        self, look: Callable[[], Awaitable[Any]], within: float = 20, what: Callable[[], str] = lambda: "it"
    ) -> Any:
        """What `look` finds, as soon as it finds something."""
        end = time.monotonic() + within
        while not (found := await look()):
            assert time.monotonic() < end, f"waited {within} s for {what()}"
            await asyncio.sleep(0.05)
        return found


_HARMLESS = {
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNSPECIFIED,  # it did not fail
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,  # a fact came in while it ended
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW,
}

_MAY_BE_EMPTY = {
    "per tender: refunds moved, moving or perhaps moved ≤ captured",
    "per order line: claimed units ≤ bought, claimed amount ≤ paid",
    "one refund key ↔ one provider reference",
    "every journal entry balances to zero",
    "no message claims a refund that is not confirmed",
    "the provider agrees on what moved",
}
"""Checks that a scenario without any refund has nothing for."""


@asynccontextmanager
async def desk_on(settings: Settings, **options: Any) -> AsyncIterator[Desk]:
    """A desk on a stack of its own. Goods do not arrive by themselves unless `auto_receive_seconds` says so."""
    options = {"auto_receive_seconds": None} | options
    async with (
        stack(settings, **options) as running,
        httpx.AsyncClient(base_url=running.intake_url, timeout=30) as intake,
        httpx.AsyncClient(base_url=running.sandbox_url, timeout=30) as sandbox,
    ):
        yield Desk(running, intake, sandbox)
