"""How fast refunds are, against the floor under them.

    python -m benchmarks.refund [--cases 60] [--rounds 3]

One embedded Temporal server carries both, in alternating rounds after a warm-up. *Product*: auto-approved refunds with all
their rows, the call to the sandbox provider, its webhook back and the message, told over HTTP to `aftersales serve` and done
by `python worker.py`, on one SQLite file. *Floor*: workflows of the same shape whose activities return at once (see
`benchmarks.floor`), started and signalled by this process. All cases of a round are in flight at once; the clock runs from
the first event to the last case completed. Nothing passes or fails by its speed.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean, median
from typing import Any

from temporalio.client import WorkflowHandle

from benchmarks.floor import SIGNAL, TASK_QUEUE, Floor
from benchmarks.meter import Usage, metered
from benchmarks.processes import SETTLE_SECONDS, Deployment, deployed
from domain.cases import CaseView, workflow_id

_BATCH = {"content-type": "application/cloudevents-batch+json"}
_OWNER = {"merchant": "bench", "channel": "web"}
_AMOUNT = 10_000
_PATIENCE = 600.0

Handle = WorkflowHandle[Any, Any]
Begin = Callable[[str], Awaitable[Handle]]


@dataclass(frozen=True)
class Round:
    """One round of one kind; `events` in the history of a case, on average."""

    cases: int
    seconds: float
    events: float
    usage: Usage

    @property
    def speed(self) -> float:
        return self.cases / self.seconds


async def run(cases: int, rounds: int) -> None:
    pairs: list[tuple[Round, Round]] = []
    with tempfile.TemporaryDirectory(prefix="aftersales-bench-") as folder:
        async with deployed(Path(folder)) as on:
            for number in range(rounds + 1):
                names = [f"{number}-{case}" for case in range(cases)]
                pair = await product(on, names), await floor(on, names)
                print(f"round {number}" if number else "warm-up", *(f"{one.speed:6.1f} cases/s" for one in pair), flush=True)
                pairs.append(pair)
    _report(pairs[1:])


async def product(on: Deployment, names: Sequence[str]) -> Round:
    """Refunds, their orders told before the clock starts. Raises if a case ended without its money moved."""
    for name in names:
        (await on.intake.post("/events", json=_order(name), headers=_BATCH)).raise_for_status()

    async def begin(name: str) -> Handle:
        answer = (await on.intake.post("/events", json=_request(name))).json()
        if answer["status"] != "accepted":
            raise RuntimeError(f"{name} was not accepted: {answer}")
        return on.client.get_workflow_handle(workflow_id(answer["case_id"]), result_type=CaseView)

    round_, results = await _timed(on, "worker", names, begin)
    if unpaid := [view.case_id for view in results if view.refunded != _AMOUNT]:
        raise RuntimeError(f"not refunded: {', '.join(unpaid)}")
    return round_


async def floor(on: Deployment, names: Sequence[str]) -> Round:
    """Bare workflows; each is told `SIGNAL` as long after it submitted as the provider takes to settle a refund."""

    async def begin(name: str) -> Handle:
        return await on.client.start_workflow(Floor.run, f"floor/{name}", id=f"floor/{name}", task_queue=TASK_QUEUE)

    async def settle(id_: str) -> None:
        await asyncio.sleep(SETTLE_SECONDS)
        await on.client.get_workflow_handle(id_).signal(SIGNAL, id_)

    async def settle_all() -> None:
        async with asyncio.TaskGroup() as settling:
            for _ in names:
                settling.create_task(settle((await on.submitted.readline()).decode().strip()))

    settled = asyncio.create_task(settle_all())
    round_, _ = await _timed(on, "floor", names, begin)
    await settled
    return round_


async def _timed(on: Deployment, worker: str, names: Sequence[str], begin: Begin) -> tuple[Round, list[Any]]:
    """All cases at once; their results."""
    handles: list[Handle] = []

    async def whole(name: str) -> Any:
        handles.append(handle := await begin(name))
        return await handle.result()

    pids = {"worker": on.pids[worker], **{name: on.pids[name] for name in ("Temporal", "intake", "sandbox")}}
    async with metered(pids) as usage:
        start = time.perf_counter()
        async with asyncio.timeout(_PATIENCE):  # a case that went to a person would never end
            results = await asyncio.gather(*(whole(name) for name in names))
        seconds = time.perf_counter() - start
    return Round(len(names), seconds, await _history_events(handles), usage), results


async def _history_events(handles: Sequence[Handle]) -> float:
    return mean([(await handle.describe()).history_length for handle in handles])


def _report(pairs: Sequence[tuple[Round, Round]]) -> None:
    """A line a figure: the median of the rounds, product beside floor."""
    kinds = tuple(zip(*pairs, strict=True))
    print(f"\n{pairs[0][0].cases} cases at once, median of {len(pairs)} rounds, {os.cpu_count()} CPUs\n")
    _row("", "product", "floor")
    _row("cases/s", *(f"{median(one.speed for one in kind):.1f}" for kind in kinds))
    _row("history events a case", *(f"{median(one.events for one in kind):.1f}" for kind in kinds))
    for process in ("worker", "Temporal", "intake", "sandbox"):
        shown = (f"{median(1_000 * one.usage.cpu[process] / one.cases for one in kind):.1f}" for kind in kinds)
        _row(f"{process} CPU ms a case", *shown)
    for process in ("worker", "Temporal", "intake", "sandbox"):
        _row(f"{process} peak memory MB", *(f"{max(one.usage.memory[process] for one in kind) / 1e6:.0f}" for kind in kinds))
    ratios = [ours.speed / bare.speed for ours, bare in pairs]
    print(f"\nproduct/floor: {median(ratios):.2f} (rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")


def _row(figure: str, *shown: str) -> None:
    print(f"{figure:<26}" + "".join(f"{one:>10}" for one in shown))


def _order(name: str) -> list[dict[str, Any]]:
    """An order of one line for 100.00, paid by card, sent and received."""
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    of = _OWNER | {"order_id": f"O{name}"}
    line = {"line_id": "1", "sku": "TEA-1", "quantity": 1, "amount": _AMOUNT}
    card = {"tender_id": "card", "kind": "card", "provider": "sandbox", "payment_ref": f"pay-{name}", "amount": _AMOUNT}
    buyer = {"buyer_id": f"b-{name}", "email": "buyer@example.com"}
    paid = of | {"currency": "CNY", "placed_at": yesterday, "buyer": buyer, "lines": [line], "tenders": [card]}
    return [
        _event(name, "order.paid", paid),
        _event(name, "order.shipped", of | {"waybill": f"SF{name}", "shipped_at": yesterday}),
        _event(name, "order.delivered", of | {"delivered_at": yesterday}),
    ]


def _request(name: str) -> dict[str, Any]:
    asked = {
        **_OWNER,
        "reference": f"R{name}",
        "kind": "refund",
        "order_id": f"O{name}",
        "currency": "CNY",
        "reason": "quality",
        "lines": [{"line_id": "1", "quantity": 1}],
        "requested_at": datetime.now(UTC).isoformat(),
    }
    return _event(name, "aftersale.requested", asked)


def _event(name: str, type_: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"{name}-{type_}", "source": "/bench", "type": type_, "data": data}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.refund")
    parser.add_argument("--cases", type=int, default=60, help="in flight at once (default 60)")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind, after the warm-up (default 3)")
    given = parser.parse_args()
    asyncio.run(run(given.cases, given.rounds))
