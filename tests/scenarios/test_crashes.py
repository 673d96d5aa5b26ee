"""Crashes (M1 and the faults): worker, Temporal server and provider killed in the middle of a call. Judged by the provider's
own books and the audit."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from db.migrate import upgrade
from domain.cases import Action, CaseStatus, workflow_id
from domain.effects import EffectKind, EffectState
from engine.client import connect
from tests.desk import case_id, policies_with
from tests.scenarios.cluster import Cluster, cluster, kill

RECOVERY = 40.0
"""Seconds within which another worker has done everything that a killed one had begun: it is missed after ten."""
ENOUGH = range(6)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Cluster]:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    upgrade(url)
    async with on(url, tmp_path) as running:
        yield running


@pytest.fixture
async def desk_on_each_database(tmp_path: Path, records_url: str) -> AsyncIterator[Cluster]:
    async with on(records_url, tmp_path) as running:
        yield running


def on(records_url: str, folder: Path) -> AbstractAsyncContextManager[Cluster]:
    """An outside system that is down is tried for minutes, as in earnest: no call ends early by that."""
    return cluster(folder, records_url, policies_with(folder / "policies", payment={"try_for": "5m"}))


async def paid_once(desk: Cluster, numbers: range) -> None:
    """Every case completes, its money moved once and under one key, the buyer was told, and the audit is clean."""
    for n in numbers:
        case = await desk.status(case_id(f"R{n}"), CaseStatus.completed, within=RECOVERY)
        assert case.refunded == 5_000
        assert [one["amount"] for one in await desk.refunds_of(f"pay-O{n}")] == [5_000]
        [effect] = await desk.effects(case.case_id, EffectKind.refund)
        assert effect.state is EffectState.succeeded
        assert ("refund_paid", "buyer") in {(template, who) for template, who, _ in await desk.messages(case.case_id)}
    await desk.check_audit()


async def books_show(desk: Cluster, *, calls: int = 0, refunds: int = 0) -> None:
    """Until the provider was called, and has refunded, so often at least."""

    async def there() -> bool:
        books = await desk.books()
        return bool(books["calls"] >= calls and books["refunds"] >= refunds)

    await desk.until(there, what=lambda: f"{calls} calls and {refunds} refunds at the provider")


async def states(desk: Cluster, numbers: range) -> set[EffectState]:
    return {effect.state for n in numbers for effect in await desk.effects(case_id(f"R{n}"), EffectKind.refund)}


async def begun_and_unheard(desk: Cluster, numbers: range) -> None:
    """Cases whose refund the provider has made, and whose worker waits for the answer."""
    await desk.fault("pay-*", "webhook_first", times=None)
    desk.gate.shut()
    await desk.ask_refunds(*numbers)
    await books_show(desk, refunds=len(numbers))


async def test_m1_a_worker_killed_after_the_provider_accepted_leaves_one_refund_and_the_case_ends_by_itself(
    desk_on_each_database: Cluster,
) -> None:
    desk = desk_on_each_database
    worker = await desk.worker()
    await begun_and_unheard(desk, ENOUGH)
    await kill(worker)
    assert await states(desk, ENOUGH) == {EffectState.unknown}

    await desk.worker()
    for n in ENOUGH:
        await desk.status(case_id(f"R{n}"), CaseStatus.completed, within=RECOVERY)
    desk.gate.open()  # the provider's reports are old news by now

    await paid_once(desk, ENOUGH)
    assert (await desk.books())["calls"] == len(ENOUGH)


async def test_m1_a_call_that_died_on_its_way_is_made_again_only_by_a_persons_word(desk: Cluster) -> None:
    worker = await desk.worker()
    await desk.fault("pay-*", "slow", times=None, seconds=60)
    cases = await desk.ask_refunds(*ENOUGH)
    await books_show(desk, calls=len(ENOUGH))
    await kill(worker)
    await kill(desk.box)  # with it, the calls that it had not looked at yet

    await desk.restart_sandbox()
    await desk.sandbox.delete("/faults")
    await desk.worker()
    for case in cases:
        await desk.stuck(case, "outcome_unknown", within=RECOVERY)
    books = await desk.books()
    assert (books["calls"], books["refunds"]) == (len(ENOUGH), 0), "it was called again without a person's word"
    for case in cases:
        await desk.resolve(case, Action.retry)

    await paid_once(desk, ENOUGH)


async def test_workers_killed_again_and_again_lose_nothing_and_pay_nothing_twice(desk: Cluster) -> None:
    numbers = range(12)
    worker = await desk.worker()
    for third in (numbers[:4], numbers[4:8], numbers[8:]):
        await desk.ask_refunds(*third)
        await books_show(desk, refunds=third[0] + 1)
        await kill(worker)
        worker = await desk.worker()

    for n in numbers:
        case = await desk.status(case_id(f"R{n}"), CaseStatus.completed, CaseStatus.attention, within=RECOVERY)
        if case.status is CaseStatus.attention:  # killed between the intent and the call: nobody can know
            assert case.attention_cause == "outcome_unknown"
            await desk.resolve(case.case_id, Action.retry)
    await paid_once(desk, numbers)


async def test_a_temporal_server_killed_in_mid_flight_goes_on_from_its_file(desk: Cluster) -> None:
    await desk.worker()
    await begun_and_unheard(desk, ENOUGH)
    await desk.kill_temporal()
    desk.gate.open()  # the reports are stored by the intake, which cannot tell them to the cases yet
    await desk.restart_temporal()
    await desk.ask_refunds(len(ENOUGH))

    await paid_once(desk, range(len(ENOUGH) + 1))


async def test_a_worker_told_to_stop_finishes_what_it_began_and_exits_with_zero(desk: Cluster) -> None:
    worker = await desk.worker()
    await begun_and_unheard(desk, ENOUGH)
    worker.send_signal(signal.SIGTERM)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await worker.wait()
    desk.gate.open()
    async with asyncio.timeout(20):
        assert await worker.wait() == 0

    await desk.worker()
    await paid_once(desk, ENOUGH)
    refunds = {(process, attempt) for activity, process, attempt in await performed(desk, ENOUGH) if activity == "refund"}
    assert refunds == {(worker.pid, 1)}, "what it had begun was begun anew"


async def test_two_workers_share_the_load_and_do_first_what_had_to_wait_for_them(desk: Cluster) -> None:
    waited, came = range(6), range(6, 18)
    await desk.ask_refunds(*waited)
    workers = await asyncio.gather(desk.worker(), desk.worker())
    await desk.ask_refunds(*came)

    await paid_once(desk, range(len(waited) + len(came)))
    assert {process for _, process, _ in await performed(desk, came)} == {worker.pid for worker in workers}


async def performed(desk: Cluster, numbers: range) -> set[tuple[str, int, int]]:
    """(activity, process, attempt) of every activity of these cases."""
    client = await connect(desk.stack.settings, address=desk.stack.server.address)
    found = set()
    for n in numbers:
        events = (await client.get_workflow_handle(workflow_id(case_id(f"R{n}"))).fetch_history()).events
        names = {event.event_id: event.activity_task_scheduled_event_attributes.activity_type.name for event in events}
        for event in events:
            if event.HasField("activity_task_started_event_attributes"):
                begun = event.activity_task_started_event_attributes
                found.add((names[begun.scheduled_event_id], int(begun.identity.partition("@")[0]), begun.attempt))
    return found
