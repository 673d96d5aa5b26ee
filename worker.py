"""Composes adapters into activities and runs them: the only place that knows which outside systems we talk to.

    python worker.py      runs one worker against the Temporal server of the client profile, until SIGTERM or Ctrl-C

Several workers may run side by side. A stopping worker takes no new tasks and finishes what it has.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import structlog
from temporalio.client import Client
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import SandboxImportNotificationPolicy

from activities.effects import EffectLog
from activities.finance import Finance
from activities.notification import Notification
from activities.registration import Registration
from activities.warehouse import WarehouseDesk
from adapters.messaging.port import Messenger
from adapters.messaging.smtp import SmtpMessenger
from adapters.messaging.webhook import WebhookMessenger
from adapters.payments.sandbox import SandboxPayments
from adapters.warehouse.sandbox import SandboxWarehouse
from db.session import Database
from domain.errors import AftersalesError, Rejected
from domain.policy import Policies
from domain.policy_file import parse
from engine import attributes
from engine.client import connect, runtime
from engine.logs import configure
from settings import Settings, load
from workflows import PROCESSES
from workflows.look_up import LookUp

log = structlog.get_logger()

_OURS = ("activities", "adapters", "db", "domain", "engine", "settings", "workflows")
_THEIRS = ("aiosmtplib", "httpx", "jinja2", "pydantic", "pydantic_core", "sqlalchemy", "standardwebhooks", "structlog", "yaml")

GRACE = timedelta(seconds=75)
"""Longer than the longest activity attempt, so that a stopping worker finishes what it began."""


def runner() -> SandboxedWorkflowRunner:
    """The workflow sandbox with our own packages let through: they are pure, or only named by workflows. A module that is
    let through without being named here is an error when the worker starts."""
    policy = SandboxImportNotificationPolicy
    return SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules(*_OURS, *_THEIRS).with_import_notification_policy(
            policy.WARN_ON_DYNAMIC_IMPORT | policy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
        )
    )


@asynccontextmanager
async def running(
    settings: Settings, client: Client, db: Database, policies: Policies, *, max_cached_workflows: int = 1_000
) -> AsyncIterator[Worker]:
    """A worker with all its activities, for as long as the block lasts; it drains at the end."""
    await attributes.register(client)
    async with httpx.AsyncClient(base_url=settings.sandbox_url, timeout=settings.http_timeout_seconds) as http:
        log_ = EffectLog(db)
        registration = Registration(db, policies)
        warehouse = WarehouseDesk(db, log_, SandboxWarehouse(http))
        finance = Finance(db, log_, {"sandbox": SandboxPayments(http)})
        notification = Notification(db, log_, _messenger(settings, http), policies)
        worker = Worker(
            client,
            task_queue=settings.task_queue,
            workflows=[*PROCESSES.values(), LookUp],
            activities=[
                registration.register,
                registration.record_decision,
                registration.settle_step_by_hand,
                registration.store,
                warehouse.expect_return,
                warehouse.cancel_return,
                warehouse.stop_shipment,
                warehouse.record_receipt,
                finance.refund,
                finance.look_up_refund,
                finance.slices,
                finance.standing,
                finance.settle_by_hand,
                finance.take_grant_back,
                notification.tell,
            ],
            workflow_runner=runner(),
            workflow_task_executor=ThreadPoolExecutor(max_workers=4),
            graceful_shutdown_timeout=GRACE,
            max_cached_workflows=max_cached_workflows,
            max_concurrent_activities=50,
        )
        async with worker:
            log.info("worker.started", task_queue=settings.task_queue, namespace=client.namespace)
            yield worker
    log.info("worker.stopped")


def _messenger(settings: Settings, http: httpx.AsyncClient) -> Messenger:
    if settings.messaging == "smtp":
        return SmtpMessenger(
            host=settings.smtp_host,
            port=settings.smtp_port,
            sender=settings.smtp_sender,
            username=settings.smtp_username,
            password=settings.smtp_password.get_secret_value(),
            timeout=settings.http_timeout_seconds,
        )
    secret = settings.message_webhook_secret.get_secret_value()
    if not secret:
        raise Rejected("is required for messages by webhook", field="AFTERSALES_MESSAGE_WEBHOOK_SECRET")
    return WebhookMessenger(http, settings.message_webhook_url or f"{settings.sandbox_url}/messages", secret)


async def main(settings: Settings) -> None:
    """Run one worker until told to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    db = Database(settings.records_url)
    try:
        client = await connect(settings, runtime=runtime(settings))
        async with running(settings, client, db, parse(settings.policy_texts())):
            await stop.wait()
    finally:
        await db.close()


if __name__ == "__main__":
    try:
        loaded = load()
        configure(loaded)
        asyncio.run(main(loaded))
    except AftersalesError as error:
        sys.exit(f"aftersales: {error}")
