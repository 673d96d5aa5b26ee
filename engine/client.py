"""The connection to Temporal: the standard client profile, our data converter, and one runtime for the process."""

import asyncio
import atexit
import logging
import re
import time
from functools import cache

from temporalio.client import Client
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

from domain.errors import DependencyDown, Rejected
from engine.codec import Keyring, data_converter
from settings import Settings

CONNECT_SECONDS = 5.0
ADDRESS_FILE = "temporal.address"
"""In the data directory while the embedded server runs: its `host:port`."""


async def connect(settings: Settings, *, address: str | None = None, runtime: Runtime | None = None) -> Client:
    """A client with the payload keys of the settings.

    The server is `address` or else the client profile's or else the running embedded one or else localhost:7233. The
    embedded server has no TLS and one namespace, so none of the profile applies to it. `DependencyDown` when nothing
    answers within `CONNECT_SECONDS`, `Rejected` when the profile cannot be read.
    """
    config = ClientConnectConfig(target_host=address) if address else _profile(settings)
    target = config.setdefault("target_host", "localhost:7233")
    converter = data_converter(Keyring.load(settings))
    _let_the_last_answer_in()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await Client.connect(**config, data_converter=converter, runtime=runtime)
    except (RuntimeError, ValueError, TimeoutError) as error:
        raise DependencyDown(
            f"no Temporal server at {target} ({_reason(error)}): "
            "start one with `aftersales up`, or set TEMPORAL_ADDRESS to yours"
        ) from error


def runtime(settings: Settings) -> Runtime:
    """The process's one runtime: the SDK's own log goes to `logging`, its metrics to 127.0.0.1:`metrics_port` if set.

    `DependencyDown` when the port is taken.
    """
    return _runtime(settings.metrics_port)


@cache
def _runtime(metrics_port: int) -> Runtime:
    log = LoggingConfig(
        filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
        forwarding=LogForwardingConfig(
            logger=logging.getLogger("temporalio.core"),
            append_target_to_name=False,
        ),
    )
    metrics = PrometheusConfig(bind_address=f"127.0.0.1:{metrics_port}") if metrics_port else None
    try:
        return Runtime(telemetry=TelemetryConfig(logging=log, metrics=metrics))
    except ValueError as error:
        raise DependencyDown(f"no metrics on 127.0.0.1:{metrics_port} ({error}); set another metrics port") from error


def _profile(settings: Settings) -> ClientConnectConfig:
    try:
        config = ClientConfig.load_client_connect_config()
    except RuntimeError as error:
        raise Rejected(f"the Temporal client profile cannot be read: {error}") from error
    running = settings.data_dir / ADDRESS_FILE
    if "target_host" not in config and running.exists():
        return ClientConnectConfig(target_host=running.read_text("ascii").strip())
    return config


def _reason(error: Exception) -> str:
    """The few words that matter out of the SDK's nested error text."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_SECONDS:.0f} s"
    innermost = re.findall(r'(?:message: |Custom \{.*error: )"([^"]+)"', str(error))
    return innermost[-1] if innermost else str(error).removeprefix("Failed client connect: ")


@cache
def _let_the_last_answer_in() -> None:
    # The SDK's thread may still hold the interpreter for an instant after the last answer was delivered; a short command
    # that ends in that instant dies with SIGABRT after its work is done (temporalio/sdk-python#300, seen in 1 of 20).
    atexit.register(time.sleep, 0.05)
