"""What a case can be searched by in Temporal. The server keeps these in plaintext: no personal data in any of them."""

from datetime import datetime
from typing import Any

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate
from temporalio.service import RPCError

from domain.errors import Conflict, DependencyDown

CASE_KIND = SearchAttributeKey.for_keyword("CaseKind")
CASE_STATUS = SearchAttributeKey.for_keyword("CaseStatus")
MERCHANT = SearchAttributeKey.for_keyword("Merchant")
CHANNEL = SearchAttributeKey.for_keyword("Channel")
DEADLINE = SearchAttributeKey.for_datetime("Deadline")
ATTENTION = SearchAttributeKey.for_keyword("Attention")
"""The cause code of a case that cannot go on by itself; unset on every other."""

_TYPES = {
    key.name: IndexedValueType.ValueType(key.indexed_value_type)
    for key in (CASE_KIND, CASE_STATUS, MERCHANT, CHANNEL, DEADLINE, ATTENTION)
}


def changes(status: str, cause: str | None, deadline: datetime | None) -> list[SearchAttributeUpdate[Any]]:
    """The update that makes a running case's attributes say this; what is None is unset."""
    return [
        CASE_STATUS.value_set(status),
        ATTENTION.value_set(cause) if cause else ATTENTION.value_unset(),
        DEADLINE.value_set(deadline) if deadline else DEADLINE.value_unset(),
    ]


async def register(client: Client) -> None:
    """Add those that the client's namespace lacks; several workers may do so at once.

    `Conflict` when one exists with another type, `DependencyDown` when the server neither has them nor lets us add them
    (Temporal Cloud has its own command for it).
    """
    try:
        missing = await _missing(client)
        if not missing:
            return
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
        )
    except RPCError as error:
        raise DependencyDown(
            f"search attributes of namespace {client.namespace!r} could not be registered ({error.message}); "
            f"have an administrator add {', '.join(f'{n} ({_type_name(t)})' for n, t in _TYPES.items())}"
        ) from error


async def _missing(client: Client) -> dict[str, IndexedValueType.ValueType]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    present = (await client.operator_service.list_search_attributes(request)).custom_attributes
    for name, kind in _TYPES.items():
        if name in present and present[name] != kind:
            raise Conflict(f"search attribute {name} is {_type_name(present[name])} and should be {_type_name(kind)}")
    return {name: kind for name, kind in _TYPES.items() if name not in present}


def _type_name(kind: IndexedValueType.ValueType) -> str:
    return IndexedValueType.Name(kind).removeprefix("INDEXED_VALUE_TYPE_").lower()
