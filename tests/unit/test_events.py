"""Every event is bounded in all its parts, and what contradicts itself is refused."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from domain.events import EVENT_TYPES, AftersaleRequested, EventData, OrderPaid, RefundFailed

AT = datetime(2026, 3, 2, tzinfo=UTC)
FIXED_PATTERNS = {"^[A-Z]{3}$"}
"""Patterns that bound the length themselves."""
FORMATS = {"date-time"}
ENGINE_LIMIT = 2_000_000
"""Bytes of a payload that the process engine takes."""

Schema = dict[str, Any]
LINE: Schema = {"line_id": "1", "sku": "A", "quantity": 2, "amount": 500}
TENDER: Schema = {"tender_id": "t1", "kind": "card", "provider": "pay", "payment_ref": "P1", "amount": 1_100}
ORDER: Schema = {
    "merchant": "lanhua",
    "channel": "tmall",
    "order_id": "O1",
    "currency": "CNY",
    "placed_at": AT,
    "buyer": {"buyer_id": "b1"},
    "lines": [LINE, LINE | {"line_id": "2"}],
    "shipping": 100,
    "tenders": [TENDER],
}
REQUEST: Schema = {
    "merchant": "lanhua",
    "channel": "tmall",
    "reference": "R1",
    "kind": "return",
    "order_id": "O1",
    "currency": "CNY",
    "reason": "quality",
    "lines": [{"line_id": "1", "quantity": 1}, {"line_id": "2", "quantity": 1}],
    "requested_at": AT,
}


def parts(schema: Schema, root: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every value that an event can hold: its path and its schema, references followed."""
    if reference := schema.get("$ref"):
        schema = root["$defs"][reference.rpartition("/")[2]]
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from parts(inner, root, f"{path}.{name}")
    if "items" in schema:
        yield from parts(schema["items"], root, f"{path}[]")
    for inner in schema.get("anyOf", []):
        yield from parts(inner, root, path)


def bounded(schema: Schema) -> bool:
    match schema.get("type"):
        case "string":
            known = schema.get("format") in FORMATS or schema.get("pattern") in FIXED_PATTERNS
            return "maxLength" in schema or "enum" in schema or "const" in schema or known
        case "integer":
            return "maximum" in schema and ("minimum" in schema or "exclusiveMinimum" in schema)
        case "array":
            return "maxItems" in schema and "items" in schema
        case "object":
            return "properties" in schema and not schema.get("additionalProperties")
        case "boolean" | "null":
            return True
    return "anyOf" in schema


def most_bytes(schema: Schema, root: Schema) -> int:
    """How long the JSON of a value can get: four bytes a character, with its name, quotes and comma."""
    if reference := schema.get("$ref"):
        schema = root["$defs"][reference.rpartition("/")[2]]
    if options := schema.get("anyOf"):
        return max(most_bytes(option, root) for option in options)
    if schema.get("type") == "array":
        return int(schema["maxItems"]) * most_bytes(schema["items"], root)
    if schema.get("type") == "object":
        return sum(len(name) + 4 + most_bytes(inner, root) for name, inner in schema["properties"].items())
    return 4 * int(schema.get("maxLength", 8)) + 3


@pytest.mark.parametrize("model", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_every_part_of_every_event_is_bounded(model: type[EventData]) -> None:
    schema = model.model_json_schema()
    found = list(parts(schema, schema))
    assert {path for path, part in found if not bounded(part)} == set()
    assert len(found) > len(schema["properties"]) >= 4


@pytest.mark.parametrize("name", [name for name in EVENT_TYPES if name != "order.paid"])
def test_no_event_about_a_case_can_outgrow_the_engine(name: str) -> None:
    schema = EVENT_TYPES[name].model_json_schema()
    assert most_bytes(schema, schema) < ENGINE_LIMIT / 4


@pytest.mark.parametrize("model", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_every_time_stands_at_the_top_where_the_edge_checks_it(model: type[EventData]) -> None:
    schema = model.model_json_schema()
    times = {path for path, part in parts(schema, schema) if part.get("format") == "date-time"}
    assert times
    assert all(path.count(".") == 1 and "[]" not in path for path in times)


def test_a_type_has_one_name_and_the_model_knows_it() -> None:
    assert all(model.type_name == name for name, model in EVENT_TYPES.items())
    assert len(set(EVENT_TYPES.values())) == len(EVENT_TYPES)


# What adds up --------------------------------------------------------------------------------------------------------


def test_an_order_whose_tenders_pay_lines_and_shipping_is_good() -> None:
    assert OrderPaid.model_validate(ORDER).shipping == 100
    split = [TENDER | {"amount": 1_000}, TENDER | {"tender_id": "t2", "kind": "voucher", "amount": 100}]
    assert len(OrderPaid.model_validate(ORDER | {"tenders": split}).tenders) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"shipping": 99}, "tenders pay 1100 for lines and shipping of 1099"),
        ({"tenders": [TENDER | {"amount": 1_101}]}, "tenders pay 1101 for lines and shipping of 1100"),
        ({"lines": [LINE, LINE]}, "two lines share a line_id"),
        ({"tenders": [TENDER | {"amount": 550}, TENDER | {"amount": 550}]}, "two tenders share a tender_id"),
        ({"lines": []}, "at least 1 item"),
        ({"tenders": []}, "at least 1 item"),
        ({"tenders": [TENDER | {"amount": 0}]}, "greater than 0"),
    ],
)
def test_an_order_that_contradicts_itself_is_refused(changes: Schema, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        OrderPaid.model_validate(ORDER | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lines": [{"line_id": "1", "quantity": 1}] * 2}, "two lines share a line_id"),
        ({"lines": [{"line_id": "1", "quantity": 1}, {"quantity": 1}]}, "names the line_id of every line"),
        ({"lines": []}, "at least 1 item"),
    ],
)
def test_a_request_names_each_line_of_its_order_once(changes: Schema, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        AftersaleRequested.model_validate(REQUEST | changes)


def test_a_request_on_no_order_we_know_need_not_name_lines() -> None:
    orphan = AftersaleRequested.model_validate(REQUEST | {"order_id": None, "lines": [{"quantity": 1}, {"quantity": 2}]})
    assert [line.line_id for line in orphan.lines] == [None, None]


def test_a_refund_cannot_fail_over_nothing() -> None:
    report = {"provider": "pay", "refund_key": "refund:a:b:c:1", "provider_ref": "X", "currency": "CNY", "failed_at": AT}
    assert RefundFailed.model_validate(report | {"amount": 1, "code": "closed"}).amount == 1
    with pytest.raises(ValidationError, match="amount"):
        RefundFailed.model_validate(report | {"amount": 0, "code": "closed"})


# What is kept --------------------------------------------------------------------------------------------------------


def test_times_are_kept_in_utc() -> None:
    shanghai = AT.astimezone(timezone(timedelta(hours=8)))
    kept = AftersaleRequested.model_validate(REQUEST | {"requested_at": shanghai, "deadline": shanghai})
    assert (kept.requested_at, kept.deadline) == (AT, AT)
    assert kept.requested_at.utcoffset() == timedelta(0)


def test_text_is_kept_without_the_blanks_around_it() -> None:
    assert AftersaleRequested.model_validate(REQUEST | {"note": "  broken \n"}).note == "broken"


def test_an_event_of_a_history_may_have_fields_that_are_not_known_any_more() -> None:
    assert AftersaleRequested.model_validate(REQUEST | {"dropped": 1}) == AftersaleRequested.model_validate(REQUEST)


def test_an_event_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        AftersaleRequested.model_validate(REQUEST).reason = "damaged"  # type: ignore[misc]
