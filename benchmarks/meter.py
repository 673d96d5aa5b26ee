"""What processes of a benchmark take: CPU time and resident memory, seen from outside."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import psutil

_BETWEEN_LOOKS = 0.1


@dataclass
class Usage:
    """By process name: seconds of CPU, and the most bytes of memory that were seen at once."""

    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)


@asynccontextmanager
async def metered(pids: Mapping[str, int]) -> AsyncIterator[Usage]:
    """The usage of these processes during the block, complete at its end."""
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    before = {name: _seconds(process) for name, process in processes.items()}
    usage = Usage(memory=dict.fromkeys(processes, 0))

    async def watch() -> None:
        while True:
            for name, process in processes.items():
                usage.memory[name] = max(usage.memory[name], process.memory_info().rss)
            await asyncio.sleep(_BETWEEN_LOOKS)

    watching = asyncio.create_task(watch())
    try:
        yield usage
    finally:
        usage.cpu = {name: _seconds(process) - before[name] for name, process in processes.items()}
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
