"""`aftersales up` as people use it: it says where everything is, drains on Ctrl-C, goes on after a kill, and says in one line
why it cannot start."""

import asyncio
import re
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from db import cases
from db.session import Database
from domain.cases import CaseStatus
from tests.desk import case_id, order_events, policies_with, request_event
from tests.scenarios.cluster import Processes, environment, kill, said

AFTERSALES = str(Path(sys.executable).with_name("aftersales"))
FREE_PORTS = ("--temporal-port", "0", "--ui-port", "0", "--intake-port", "0", "--sandbox-port", "0")


DEAR = [{"line_id": "1", "sku": "TEA-1", "quantity": 2, "amount": 200_000}]
"""Too much to be approved without a person."""


@dataclass
class Shop:
    """A data directory, a policy with time for people, and the `aftersales` commands on them."""

    processes: Processes

    @property
    def data(self) -> Path:
        return self.processes.folder / "data"

    async def start(self, *command: str, **settings: str) -> tuple[Process, Path]:
        ours = {"AFTERSALES_DATA_DIR": str(self.data), "AFTERSALES_POLICIES": str(self.processes.folder / "policies")}
        return await self.processes.start(AFTERSALES, *command, env=environment(**(ours | settings)))

    async def up(self) -> tuple[Process, dict[str, str]]:
        """It runs; where everything is, by the names that it prints."""
        process, log = await self.start("up", *FREE_PORTS)
        printed = await said(process, log, "Ctrl-C drains")
        return process, dict(re.findall(r"^ *(\w[\w ]+?)  (.+)$", printed, re.MULTILINE))

    async def run(self, *command: str, **settings: str) -> tuple[int, str]:
        """(exit status, everything printed) of a command."""
        process, log = await self.start(*command, **settings)
        async with asyncio.timeout(30):
            status = await process.wait()
        return status, await asyncio.to_thread(log.read_text, "utf-8")

    async def becomes(self, case: str, *statuses: CaseStatus) -> CaseStatus:
        """The first of these statuses that the case shows."""
        db = Database(f"sqlite:///{self.data / 'aftersales.db'}")
        try:
            async with asyncio.timeout(30):
                while True:
                    async with db.read() as session:
                        shown = (await cases.named(session, case)).status
                    if shown in statuses:
                        return shown
                    await asyncio.sleep(0.05)
        finally:
            await db.close()

    def temporal(self) -> psutil.Process:
        return psutil.Process(int((self.data / "temporal.pid").read_text("ascii")))


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    policies_with(tmp_path / "policies", review={"within": "10m", "alarm_before": "1m"})
    shop = Shop(Processes(tmp_path))
    yield shop
    await shop.processes.end()
    with suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):  # what a killed `up` left when the test broke off
        left = shop.temporal()
        if str(shop.data / "temporal.db") in left.cmdline():
            left.kill()


async def tell(where: dict[str, str], *events: dict[str, Any]) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        for one in events:
            answer = await http.post(where["events in"].split()[1], json=one)
            assert answer.json()["status"] == "accepted", answer.text


async def stopped(process: Process, number: signal.Signals) -> int:
    """Its exit status after a signal."""
    process.send_signal(number)
    async with asyncio.timeout(30):
        return await process.wait()


async def test_up_says_where_everything_is_drains_on_ctrl_c_and_goes_on_with_open_cases(shop: Shop) -> None:
    process, where = await shop.up()
    async with httpx.AsyncClient() as http:
        for url in (where["Temporal UI"], f"{where['sandbox']}/health", where["events in"].split("API: ")[1].rstrip(")")):
            assert (await http.get(url, follow_redirects=True)).status_code == 200, url
    host, _, port = where["Temporal"].partition(":")
    (await asyncio.open_connection(host, port))[1].close()
    assert (where["data"], where["records"]) == (str(shop.data), f"sqlite:///{shop.data / 'aftersales.db'}")
    await tell(where, *order_events("O1", lines=DEAR), request_event("O1", "R1"))
    await shop.becomes(case_id("R1"), CaseStatus.in_review)
    server = shop.temporal()

    assert await stopped(process, signal.SIGINT) == 0
    assert not server.is_running()

    process, _ = await shop.up()
    status, printed = await shop.run("decide", case_id("R1"), "approve", "--reason", "photos")
    assert status == 0, printed
    await shop.becomes(case_id("R1"), CaseStatus.completed)
    assert (await shop.run("audit"))[0] == 0
    assert await stopped(process, signal.SIGTERM) == 0


async def test_up_that_was_killed_goes_on_and_leaves_no_server_behind(shop: Shop) -> None:
    process, where = await shop.up()
    await tell(where, *order_events("O0", lines=DEAR), request_event("O0", "R0"))
    await shop.becomes(case_id("R0"), CaseStatus.in_review)
    for n in range(1, 5):
        await tell(where, *order_events(f"O{n}"), request_event(f"O{n}", f"R{n}"))
    await kill(process)
    left = shop.temporal()
    assert left.is_running()

    process, where = await shop.up()
    assert not left.is_running()
    await shop.run("decide", case_id("R0"), "approve", "--reason", "photos")
    for n in range(5):
        shown = await shop.becomes(case_id(f"R{n}"), CaseStatus.completed, CaseStatus.attention)
        if shown is CaseStatus.attention:  # killed between the intent and the call: only a person can say
            await shop.run("replay", case_id(f"R{n}"), "--action", "retry", "--reason", "not at the provider")
            await shop.becomes(case_id(f"R{n}"), CaseStatus.completed)
    async with httpx.AsyncClient(base_url=where["sandbox"]) as http:
        books = (await http.get("/provider/books")).json()
    assert (books["refunds"], books["duplicated_keys"]) == (5, 0)
    status, printed = await shop.run("audit")
    assert status == 0, printed
    server = shop.temporal()
    assert await stopped(process, signal.SIGINT) == 0
    assert not server.is_running()


@pytest.mark.parametrize("port", ["--temporal-port", "--intake-port"])
async def test_a_taken_port_is_said_in_one_line(shop: Shop, port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        status, printed = await shop.run("up", *FREE_PORTS, port, number)
    assert status == 2
    assert printed == f"aftersales: port {number} on 127.0.0.1 is not free (Address already in use); choose another\n"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"AFTERSALES_SWEEP_SECONDS": "abc"}, "SWEEP_SECONDS: Input should be a valid number"),
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, "the database postgresql.*127.0.0.1:1/none is not usable"),
        ({"AFTERSALES_POLICIES": "/nowhere"}, r"AFTERSALES_POLICIES: no policies \(\*.yaml\) in /nowhere"),
    ],
    ids=["setting", "database", "policies"],
)
async def test_what_up_cannot_start_with_is_said_in_one_line(shop: Shop, settings: dict[str, str], line: str) -> None:
    status, printed = await shop.run("up", *FREE_PORTS, **settings)
    assert status == 2
    assert re.fullmatch(f"aftersales: [^\n]*{line}[^\n]*\n", printed), printed


async def test_a_bad_policy_is_said_with_file_line_and_field(shop: Shop) -> None:
    policy = shop.processes.folder / "policies" / "changed.yaml"
    lines = [*policy.read_text("utf-8").splitlines(), "return_windo: 7d"]
    policy.write_text("\n".join(lines), "utf-8")
    status, printed = await shop.run("up", *FREE_PORTS)
    assert status == 2
    assert re.fullmatch(f"aftersales: changed.yaml:{len(lines)}: return_windo: [^\n]*\n", printed), printed
