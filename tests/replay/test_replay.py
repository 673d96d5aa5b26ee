"""Cases live for weeks: whatever today's code is, it must read the histories of yesterday's to the same end."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from tests.replay.cases import STORIES
from tests.replay.different import DifferentRefund
from worker import runner
from workflows import PROCESSES

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.json"))


def history(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(f"case/lanhua:tmall:{path.stem}", path.read_text("utf-8"))


def replayer(*processes: type) -> Replayer:
    return Replayer(workflows=processes, workflow_runner=runner(), data_converter=pydantic_data_converter)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
async def test_a_kept_history_replays(path: Path) -> None:
    await replayer(*PROCESSES.values()).replay_workflow(history(path))


@pytest.mark.parametrize("path", [path for path in CORPUS if path.stem.startswith("refund")], ids=lambda path: path.stem)
async def test_a_process_that_takes_another_step_is_found_out(path: Path) -> None:
    with pytest.raises(NondeterminismError):
        await replayer(DifferentRefund).replay_workflow(history(path))


def test_every_story_has_its_history_to_the_end() -> None:
    assert {path.stem for path in CORPUS} >= set(STORIES)
    for path in CORPUS:
        assert history(path).events[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED, path.stem


def test_no_history_tells_of_a_buyer_or_of_a_machine() -> None:
    for path in CORPUS:
        texts = list(readable(json.loads(path.read_text("utf-8"))))
        assert any("lanhua" in text for text in texts), "nothing could be read at all"
        for text in texts:
            assert not re.search(r"@|(?<!:/)/(home|root|tmp|usr|var|work)/|File \\?\"|identity", text), f"{path.stem}: {text}"


def readable(part: Any, key: str = "") -> list[str]:
    """All texts in a history, payloads decoded."""
    if isinstance(part, dict):
        return [text for name, value in part.items() for text in [name, *readable(value, name)]]
    if isinstance(part, list):
        return [text for value in part for text in readable(value, key)]
    if not isinstance(part, str):
        return []
    return [base64.b64decode(part).decode("utf-8") if key in ("data", "encoding") else part]
