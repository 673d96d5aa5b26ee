"""Records the histories that `test_replay` holds today's code against.

    python -m tests.replay.record [NAME…]      plays the named cases (all of them without a name) and writes them to corpus/

A history is written decrypted, so that no key has to be kept for it, and without what tells of the machine that it ran on.
To be run when a process gains a road; the histories of the code before stay as they are, for cases of that age are running.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import TaskQueueKind
from temporalio.api.failure.v1 import Failure
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.client import WorkflowHistory

from domain.cases import workflow_id
from engine.client import connect
from engine.codec import EncryptionCodec, Keyring
from settings import Settings
from tests.desk import Desk, desk_on
from tests.replay.cases import STORIES

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"


async def record(names: list[str]) -> None:
    """Play and write; at once, for most of their time is waiting."""
    CORPUS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), policies=HERE.parent / "policies")
        async with desk_on(settings) as desk:
            await asyncio.gather(*(_record(desk, name) for name in names))


async def _record(desk: Desk, name: str) -> None:
    case = await STORIES[name](desk, name)
    client = await connect(desk.stack.settings, address=desk.stack.server.address)
    handle = client.get_workflow_handle(workflow_id(case))
    await handle.result()
    history = await handle.fetch_history()
    codec = EncryptionCodec(Keyring.load(desk.stack.settings))
    for event in history.events:
        await _bare(event, codec)
    (CORPUS / f"{name}.json").write_text(WorkflowHistory(history.workflow_id, history.events).to_json() + "\n", "utf-8")


async def _bare(message: Message, codec: EncryptionCodec) -> None:
    """Decrypt every payload in the message, and clear the names of the machine and the traces of its files."""
    if isinstance(message, Payload):
        [plain] = await codec.decode([message])
        message.CopyFrom(plain)
        return
    for field, value in message.ListFields():
        if field.name in ("identity", "stack_trace"):
            message.ClearField(field.name)
        elif field.message_type:
            for part in _parts(value):
                await _bare(part, codec)
    if isinstance(message, TaskQueue) and message.kind == TaskQueueKind.TASK_QUEUE_KIND_STICKY:
        message.name = "sticky"  # it was named after the worker's machine
    if isinstance(message, Failure) and message.HasField("encoded_attributes"):
        told = json.loads(message.encoded_attributes.data)
        message.encoded_attributes.data = json.dumps(told | {"stack_trace": ""}).encode()


def _parts(value: Any) -> list[Message]:
    """The messages in a field: one, or many, or those of a map."""
    if isinstance(value, Message):
        return [value]
    found = value.values() if hasattr(value, "values") else value
    return [part for part in found if isinstance(part, Message)]


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1:] or list(STORIES)))
