"""One log for everything: our own lines, the SDK's and the libraries', each with the case it belongs to.

Workflows and activities log by `workflow.logger` and `activity.logger`, which stay silent on replay; the rest by structlog.
An event is a dotted noun with key-values. What goes into a line is the caller's duty: ids, never personal data.
"""

import logging
import sys
from typing import Any

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
from structlog.stdlib import BoundLogger, ExtraAdder, LoggerFactory, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, Processor
from temporalio import activity, workflow

from settings import Settings

CASE_PREFIX = "case/"
"""Of the workflow ids of cases."""
QUIET = ("alembic", "uvicorn", "httpx", "httpcore")
"""Loggers that tell of every start or every request; only their warnings are kept."""


def configure(settings: Settings) -> None:
    """Log to stderr: a console in a terminal and a JSON object a line elsewhere, unless `log_json` says which."""
    as_json = settings.log_json if settings.log_json is not None else not sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_log_level,
        add_logger_name,
        TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[*shared, ExtraAdder(), _of_temporal],
            processors=[ProcessorFormatter.remove_processors_meta, *_renderers(as_json=as_json)],
        )
    )
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, ProcessorFormatter.wrap_for_formatter],
        logger_factory=LoggerFactory(),
        wrapper_class=BoundLogger,
    )
    workflow.logger.workflow_info_on_message = False
    activity.logger.activity_info_on_message = False
    # A line is rendered outside the workflow's sandbox: what the renderer imports is none of the workflow's business.
    workflow.logger.unsafe_disable_sandbox()


def _renderers(*, as_json: bool) -> list[Processor]:
    # Both print tracebacks without local variables, which may hold a buyer's data. A SecretStr prints as asterisks.
    if as_json:
        return [format_exc_info, JSONRenderer(ensure_ascii=False)]
    return [ConsoleRenderer(exception_formatter=plain_traceback)]


def _of_temporal(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replace the SDK's details of the running workflow or activity by flat fields."""
    event.pop("temporal_log", None)  # of the SDK's own lines, whose text says it all
    details = event.pop("temporal_activity", None)
    if details is not None:
        event.update(activity=details["activity_type"], attempt=details["attempt"])
    else:
        details = event.pop("temporal_workflow", None)
    workflow_id = details and details.get("workflow_id")
    if workflow_id:
        event["workflow_id"] = workflow_id
        if workflow_id.startswith(CASE_PREFIX):
            event["case_id"] = workflow_id.removeprefix(CASE_PREFIX)
    return event
