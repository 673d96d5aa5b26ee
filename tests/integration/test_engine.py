"""The engine against a real server: connecting, secrecy of the history, restarts, search attributes, logs."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
import pytest_asyncio
import structlog
from pydantic import BaseModel, SecretStr
from temporalio import activity, workflow
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ApplicationError
from temporalio.testing import TimeSkipper
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from domain.errors import Conflict, DependencyDown, Rejected
from engine import attributes, logs
from engine.client import ADDRESS_FILE, connect, runtime
from engine.embedded import Server, embedded_server
from settings import Settings

SECRET = "13800001234"
QUEUE = "engine"
SANDBOX = SandboxRestrictions.default.with_passthrough_modules(
    "_pytest", "domain", "engine", "httpx", "psutil", "pydantic", "pytest", "pytest_asyncio", "settings", "structlog"
).with_import_notification_policy(
    workflow.SandboxImportNotificationPolicy.WARN_ON_DYNAMIC_IMPORT
    | workflow.SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
)


class Parcel(BaseModel):
    phone: str
    broken: bool = False


class CallError(Exception):
    pass


@activity.defn
async def call_buyer(parcel: Parcel) -> str:
    activity.logger.info("buyer.called", extra={"tries": 1})
    if parcel.broken:
        raise CallError(f"nobody at {parcel.phone}")
    return f"reached {parcel.phone}"


@workflow.defn
class CallWorkflow:
    def __init__(self) -> None:
        self.hurried = False

    @workflow.run
    async def run(self, parcel: Parcel) -> str:
        workflow.logger.info("call.started")
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: self.hurried or parcel.broken, timeout=timedelta(days=14))
        return await workflow.execute_activity(
            call_buyer,
            parcel,
            start_to_close_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )

    @workflow.signal
    def hurry(self, why: str) -> None:
        self.hurried = True


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with embedded_server(tmp_path_factory.mktemp("engine"), time_skipping=True) as running:
        yield running


@pytest.fixture
def settings(server: Server, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("TEMPORAL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", os.devnull)
    return Settings(data_dir=server.log.parent, log_json=True)


@pytest.fixture
def quiet_logs() -> Iterator[None]:
    """Give the test runner its log handlers back."""
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    yield
    root.handlers[:] = kept
    root.setLevel(level)
    structlog.reset_defaults()


@asynccontextmanager
async def working(client: Client) -> AsyncIterator[None]:
    async with Worker(
        client,
        task_queue=QUEUE,
        workflows=[CallWorkflow],
        activities=[call_buyer],
        workflow_runner=SandboxedWorkflowRunner(restrictions=SANDBOX),
    ):
        yield


async def started(
    client: Client, parcel: Parcel, search_attributes: TypedSearchAttributes | None = None
) -> WorkflowHandle[CallWorkflow, str]:
    return await client.start_workflow(
        CallWorkflow.run, parcel, id=f"case/m:c:{uuid4()}", task_queue=QUEUE, search_attributes=search_attributes
    )


async def raw_history(handle: WorkflowHandle[CallWorkflow, str]) -> bytes:
    return b"".join([event.SerializeToString() async for event in handle.fetch_history_events()])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_nothing_of_a_case_can_be_read_in_its_history(settings: Settings) -> None:
    client = await connect(settings)
    async with working(client):
        handle = await started(client, Parcel(phone=SECRET))
        await handle.signal(CallWorkflow.hurry, f"{SECRET} is waiting")
        assert await handle.result() == f"reached {SECRET}"
    history = await raw_history(handle)
    assert SECRET.encode() not in history
    assert b"call_buyer" in history


async def test_nothing_of_a_failure_can_be_read_in_the_history_but_the_holder_of_the_key_sees_it(
    settings: Settings,
) -> None:
    client = await connect(settings)
    async with working(client):
        handle = await started(client, Parcel(phone=SECRET, broken=True))
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
    history = await raw_history(handle)
    assert SECRET.encode() not in history
    assert b"parcel.phone" not in history, "the stack trace is readable"
    assert isinstance(failed.value.cause, Exception)
    assert isinstance(failed.value.cause.__cause__, ApplicationError)
    assert failed.value.cause.__cause__.message == f"nobody at {SECRET}"


async def test_search_attributes_are_usable_at_once_and_may_be_registered_again(settings: Settings) -> None:
    client = await connect(settings)
    await asyncio.gather(*(attributes.register(client) for _ in range(8)))
    await attributes.register(client)
    deadline = datetime(2026, 1, 2, tzinfo=UTC)
    pairs: list[SearchAttributePair[Any]] = [
        SearchAttributePair(attributes.CASE_KIND, "refund"),
        SearchAttributePair(attributes.CASE_STATUS, "open"),
        SearchAttributePair(attributes.MERCHANT, "m"),
        SearchAttributePair(attributes.CHANNEL, "c"),
        SearchAttributePair(attributes.DEADLINE, deadline),
        SearchAttributePair(attributes.ATTENTION, "unknown_outcome"),
    ]
    handle = await started(client, Parcel(phone=SECRET), TypedSearchAttributes(pairs))
    described = await handle.describe()
    assert described.typed_search_attributes[attributes.DEADLINE] == deadline
    assert described.typed_search_attributes[attributes.ATTENTION] == "unknown_outcome"
    await handle.terminate()


async def test_a_namespace_without_the_search_attributes_that_refuses_them_is_explained(server: Server) -> None:
    client = await Client.connect(server.address, namespace="nowhere")
    with pytest.raises(DependencyDown, match=r"namespace 'nowhere' .*Deadline \(datetime\)"):
        await attributes.register(client)


async def test_a_search_attribute_of_another_type_is_a_conflict(tmp_path: Path) -> None:
    async with embedded_server(tmp_path) as server:
        client = await Client.connect(server.address)
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace="default", search_attributes={"Deadline": IndexedValueType.INDEXED_VALUE_TYPE_INT}
            )
        )
        with pytest.raises(Conflict, match="search attribute Deadline is int and should be datetime"):
            await attributes.register(client)


async def test_closed_cases_stay_readable_for_thirty_days(settings: Settings) -> None:
    client = await connect(settings)
    described = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    assert described.config.workflow_execution_retention_ttl.seconds == 30 * 86_400


async def test_a_fortnight_passes_in_a_moment_with_time_skipping(settings: Settings) -> None:
    skipping = TimeSkipper(await connect(settings)).client
    async with working(skipping):
        handle = await started(skipping, Parcel(phone=SECRET))
        assert await asyncio.wait_for(handle.result(), 20) == f"reached {SECRET}"
    case = await handle.describe()
    assert case.close_time is not None
    assert case.close_time - case.start_time >= timedelta(days=14)


async def test_log_lines_of_workflows_and_activities_name_their_case(
    settings: Settings, quiet_logs: None, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure(settings)
    client = await connect(settings)
    async with working(client):
        handle = await started(client, Parcel(phone="0", broken=True))
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    by_workflow = next(line for line in lines if line["event"] == "call.started")
    by_activity = next(line for line in lines if line["event"] == "buyer.called")
    case = {"workflow_id": handle.id, "case_id": handle.id.removeprefix("case/")}
    assert by_workflow.items() >= case.items()
    assert by_activity.items() >= {**case, "activity": "call_buyer", "attempt": 1, "tries": 1, "level": "info"}.items()
    assert datetime.fromisoformat(by_activity["timestamp"]).utcoffset() == timedelta(0)
    failure = next(line for line in lines if "exception" in line)
    assert "CallError: nobody at 0" in failure["exception"]
    assert failure.items() >= case.items()


@pytest.mark.parametrize("as_json", [True, False])
def test_own_lines_carry_the_bound_case_and_no_secret(
    as_json: bool, quiet_logs: None, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure(Settings(log_json=as_json))
    with structlog.contextvars.bound_contextvars(case_id="m:c:1"):
        structlog.get_logger("intake").info("event.taken", secret=SecretStr("hush"), nested={"secret": SecretStr("hush")})
        logging.getLogger("library").warning("slow")
        logging.getLogger("httpx").info("GET /")
    try:
        phone = SECRET
        raise CallError("nobody home")
    except CallError:
        structlog.get_logger("intake").exception("call.failed", digits=len(phone))
    printed = capfd.readouterr().err
    assert printed.count("m:c:1") == 2
    assert "nobody home" in printed
    assert not any(hidden in printed for hidden in ("hush", SECRET, "GET /"))
    if as_json:
        first = json.loads(printed.splitlines()[0])
        assert (first["event"], first["level"], first["logger"], first["case_id"]) == (
            "event.taken",
            "info",
            "intake",
            "m:c:1",
        )


async def test_the_profiles_address_comes_before_the_embedded_server(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(DependencyDown, match=f"no Temporal server at 127.0.0.1:{port} .Connection refused.: .*aftersales up"):
        await connect(settings)


async def test_a_server_that_never_answers_is_given_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.client.CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(DependencyDown, match=f"no Temporal server at {address} .no answer within"):
            await connect(settings, address=address)


async def test_metrics_are_served_on_loopback_by_the_one_runtime(settings: Settings) -> None:
    measured = Settings(data_dir=settings.data_dir, metrics_port=free_port())
    assert runtime(measured) is runtime(measured)
    await connect(settings, runtime=runtime(measured))
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"http://127.0.0.1:{measured.metrics_port}/metrics")
    assert "temporal_request" in answer.text


def test_a_taken_metrics_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DependencyDown, match=f"no metrics on 127.0.0.1:{port}"):
            runtime(Settings(metrics_port=port))


async def test_an_unreadable_profile_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_PROFILE", "nowhere")
    with pytest.raises(Rejected, match="client profile cannot be read"):
        await connect(settings)


async def test_an_open_case_outlives_a_restart_of_the_server(tmp_path: Path, settings: Settings) -> None:
    own = Settings(data_dir=tmp_path)
    async with embedded_server(tmp_path) as first:
        assert (tmp_path / ADDRESS_FILE).read_text() == first.address
        client = await connect(own)
        await attributes.register(client)
        case_id = (await started(client, Parcel(phone=SECRET))).id
    assert not (tmp_path / ADDRESS_FILE).exists()
    assert not psutil.pid_exists(first.pid)
    async with embedded_server(tmp_path) as second:
        assert second.address != first.address
        client = await connect(own)
        await attributes.register(client)
        async with working(client):
            handle = client.get_workflow_handle_for(CallWorkflow.run, case_id)
            await handle.signal(CallWorkflow.hurry, "")
            assert await handle.result() == f"reached {SECRET}"


async def test_a_taken_port_is_said_in_one_line_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for options in ({"port": port}, {"ui_port": port}):
            with pytest.raises(Rejected, match=f"^port {port} on 127.0.0.1 is not free") as refused:
                async with embedded_server(tmp_path, **options):
                    pass
            assert "\n" not in str(refused.value)
    assert not (tmp_path / "temporal.db").exists()


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "temporal.db").mkdir()
    with pytest.raises(DependencyDown, match=r"exited with \d+: .*temporal\.log"):
        async with embedded_server(tmp_path):
            pass


async def test_a_server_that_loses_a_port_while_starting_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlucky_once = f"""#!/bin/sh
[ -e {tmp_path}/tried ] && exec {Path(sys.executable).with_name("temporal")} "$@"
touch {tmp_path}/tried; echo "Error: address already in use"; exit 1
"""
    (tmp_path / "temporal").write_text(unlucky_once)
    (tmp_path / "temporal").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    async with embedded_server(tmp_path / "data") as server:
        assert (tmp_path / "data" / "temporal.pid").read_text() == str(server.pid)
    assert "address already in use" in server.log.read_text()


async def test_a_missing_program_is_named_with_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyDown, match="`temporal` program is missing: install"):
        async with embedded_server(tmp_path):
            pass


async def test_two_owners_cannot_share_a_directory(server: Server) -> None:
    with pytest.raises(Conflict, match="already runs a Temporal server"):
        async with embedded_server(server.log.parent):
            pass
    assert psutil.pid_exists(server.pid)


OWNER = """
import asyncio, pathlib, sys
from engine.embedded import embedded_server
async def main():
    async with embedded_server(pathlib.Path(sys.argv[1])) as server:
        print(server.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_server_left_behind_by_a_killed_owner_is_replaced(tmp_path: Path, settings: Settings) -> None:
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER, str(tmp_path), stdout=subprocess.PIPE)
    assert owner.stdout is not None
    left = psutil.Process(int(await owner.stdout.readline()))
    client = await connect(Settings(data_dir=tmp_path))
    case_id = (await started(client, Parcel(phone=SECRET))).id
    owner.kill()
    await owner.wait()
    try:
        assert left.is_running()
        async with embedded_server(tmp_path) as server:
            assert server.pid != left.pid
            assert not left.is_running()
            client = await connect(Settings(data_dir=tmp_path))
            assert (await client.get_workflow_handle(case_id).describe()).id == case_id
    finally:
        if left.is_running():
            left.kill()


async def test_ctrl_c_in_the_terminal_does_not_reach_the_server(server: Server) -> None:
    assert os.getpgid(server.pid) != os.getpgid(0)
    assert os.getsid(server.pid) != os.getsid(0)


async def test_a_pid_that_meanwhile_belongs_to_another_program_is_left_alone(tmp_path: Path) -> None:
    bystander = await asyncio.create_subprocess_exec("sleep", "60")
    (tmp_path / "temporal.pid").write_text(str(bystander.pid))
    async with embedded_server(tmp_path):
        assert bystander.returncode is None
    bystander.send_signal(signal.SIGKILL)
    assert await bystander.wait() == -signal.SIGKILL
