"""The published description of the intake, and that no JSON whatever brings it down."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from db.session import Database
from domain.events import EVENT_TYPES
from settings import Settings
from tests.desk import fact, now, order_events, request_event
from tests.integration.kit import BATCH, ONE, Json, untold
from web.app import create_app


def app_on(db: Database, **more: Any) -> FastAPI:
    return create_app(Settings(allow_unsigned=True, **more), untold(db))


def document(tmp_path: Any) -> Json:
    described: Json = app_on(Database(f"sqlite:///{tmp_path / 'none.db'}")).openapi()
    return json.loads(json.dumps(described))  # type: ignore[no-any-return]


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (value for name, value in part.items() if name == "$ref")
    for item in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from references(item)


def test_the_description_is_openapi_and_everything_it_refers_to_is_there(tmp_path: Any) -> None:
    described = document(tmp_path)

    assert described["openapi"].startswith("3.1")
    assert described["info"]["title"] == "Aftersales event intake"
    for reference in references(described):
        found = described
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
    for schema in described["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    told = described["paths"]["/events"]["post"]
    assert {"202", "207", "401", "409", "413", "415", "422", "429", "503"} <= set(told["responses"])
    assert set(told["requestBody"]["content"]) == {ONE, BATCH}


def test_the_description_names_every_event_by_a_schema_that_takes_it_and_nothing_else(tmp_path: Any) -> None:
    content = document(tmp_path)["paths"]["/events"]["post"]["requestBody"]["content"]
    one, many = content[ONE]["schema"], content[BATCH]["schema"]
    Draft202012Validator.check_schema(one)
    Draft202012Validator.check_schema(many)
    told = [*order_events("O1"), request_event("O1", "R1"), fact("aftersale.withdrawn", "R1", withdrawn_at=now().isoformat())]

    assert {each["title"] for each in one["oneOf"]} == set(EVENT_TYPES)
    assert Draft202012Validator(many).is_valid(told)
    for event in told:
        assert Draft202012Validator(one).is_valid(event)
        assert not Draft202012Validator(one).is_valid(event | {"type": "order.paidd"})
        assert not Draft202012Validator(one).is_valid(event | {"data": event["data"] | {"more": 1}})
        assert not Draft202012Validator(one).is_valid(event | {"data": {}})


texts = st.text(st.characters(codec=None), max_size=8) | st.sampled_from(["\0", "\ud800", "9999-12-31T24:00:00Z", "1.0", ""])
numbers = st.integers() | st.floats() | st.sampled_from([10**30, -1, 2**63, 2**64])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def paths(part: Any) -> Iterator[tuple[Any, ...]]:
    """Where something could be something else, in an event."""
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for name, item in items:
        yield (name,)
        yield from ((name, *deeper) for deeper in paths(item))


@st.composite
def nearly_events(draw: st.DrawFn) -> Any:
    """A good event with anything at one or two places of it."""
    withdrawn = fact("aftersale.withdrawn", "R1", withdrawn_at="2026-11-20T08:00:00Z")
    event = draw(st.sampled_from([*order_events("O1"), request_event("O1", "R1"), withdrawn]))
    changed = json.loads(json.dumps(event | {"time": "2026-11-20T08:00:00Z"}))
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(list(paths(changed))))
        place = changed
        for name in way:
            place = place[name]
        place[last] = draw(texts if isinstance(place[last], str) and draw(st.booleans()) else values)
    return changed


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(said=st.one_of(values, nearly_events(), st.lists(nearly_events(), max_size=3)))
async def test_any_json_is_answered_and_never_by_a_fault_of_ours(db: Database, said: Any) -> None:
    transport = httpx.ASGITransport(app_on(db, max_requests_per_second=10**6))
    async with httpx.AsyncClient(transport=transport, base_url="http://intake") as client:
        answer = await client.post("/events", content=json.dumps(said), headers={"content-type": ONE})

    assert 200 <= answer.status_code < 500
    answer.json()


@pytest.mark.parametrize("closing", [b"", b"]"])
async def test_no_depth_of_nesting_is_too_deep_to_be_answered(db: Database, closing: bytes) -> None:
    transport = httpx.ASGITransport(app_on(db, max_requests_per_second=10**6))
    async with httpx.AsyncClient(transport=transport, base_url="http://intake") as client:
        for depth in range(800, 1_000, 3):
            body = b'{"data": ' + b"[" * depth + closing * depth + b"}"
            answer = await client.post("/events", content=body, headers={"content-type": ONE})
            assert answer.status_code == 422, depth
