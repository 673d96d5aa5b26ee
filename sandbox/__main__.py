"""`python -m sandbox`: the counterparts as a process of their own, until SIGTERM or Ctrl-C."""

import argparse
import asyncio
import logging
import signal
from pathlib import Path

from pydantic import SecretStr

from sandbox.app import running
from sandbox.config import SandboxConfig


async def serve(config: SandboxConfig, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(config, port):
        await stop.wait()


def main() -> None:
    defaults = SandboxConfig.model_fields
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=8650, help="on 127.0.0.1")
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--intake-url", required=True, help="where webhooks go")
    parser.add_argument("--secret", type=SecretStr, required=True, help="whsec_…, signs webhooks and checks messages")
    parser.add_argument("--settle-seconds", type=float, default=defaults["settle_seconds"].default)
    parser.add_argument(
        "--auto-receive-seconds",
        type=lambda text: None if text == "never" else float(text),
        default=defaults["auto_receive_seconds"].default,
        help="seconds, or never",
    )
    arguments = vars(parser.parse_args())
    port = arguments.pop("port")
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(serve(SandboxConfig(**arguments), port))


if __name__ == "__main__":
    main()
