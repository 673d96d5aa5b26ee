"""Processes that are replayed from their beginning at every single task: what depends on anything but the history shows."""

from pathlib import Path

from settings import Settings
from tests.conftest import POLICIES
from tests.desk import desk_on
from tests.replay.cases import STORIES


async def test_every_road_through_the_processes_can_be_replayed_at_any_point(tmp_path: Path) -> None:
    """One case after the other: without a cache, a worker gives up the local activities of one to make room for another."""
    async with desk_on(Settings(data_dir=tmp_path, policies=POLICIES), max_cached_workflows=0) as desk:
        for name, play in STORIES.items():
            await play(desk, name)
            assert await desk.failed_tasks() == []
        await desk.check_audit()
