"""What can be said against an event is said at the edge, with the field and the reason; what passes can be relied on."""

import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.envelope import CLOCK_SKEW, LATEST_DEADLINE, Event, parse_event, parse_json, storable
from domain.errors import Rejected
from domain.events import AftersaleRequested

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
DATA: dict[str, Any] = {
    "merchant": "lanhua",
    "channel": "tmall",
    "reference": "R1",
    "kind": "refund",
    "order_id": "O1",
    "currency": "CNY",
    "reason": "quality",
    "lines": [{"line_id": "1", "quantity": 2, "amount": 500}],
    "requested_at": "2026-03-02T15:00:00+08:00",
}
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "E1",
    "source": "/erp",
    "type": "aftersale.requested",
    "time": "2026-03-02T07:00:00Z",
    "data": DATA,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
SPOTS = [*EVENT, *(f"data.{name}" for name in DATA), "data.deadline", "data.note", "new", "data.new"]


def event(**changes: object) -> dict[str, Any]:
    return EVENT | changes


def with_data(**changes: object) -> dict[str, Any]:
    return event(data=DATA | changes)


def with_line(**changes: object) -> dict[str, Any]:
    return with_data(lines=[DATA["lines"][0] | changes])


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in EVENT.items() if key != name}


def told(raw: object) -> Event:
    """The event as it arrives: bytes of JSON."""
    return parse_event(parse_json(json.dumps(raw).encode()), NOW)


def refusal(raw: object) -> Rejected:
    with pytest.raises(Rejected) as refused:
        told(raw)
    return refused.value


# Bytes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"id": "E1",}',
        b"{'id': 'E1'}",
        b'{"amount": NaN}',
        b'{"amount": -Infinity}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5_000,
        b"\xef\xbb\xbf{}",
    ],
    ids=["empty", "open", "comma", "quotes", "nan", "infinity", "deep list", "deep object", "long number", "bom"],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        parse_json(body)
    assert (refused.value.field, refused.value.cause) == ("body", "not_json")


@pytest.mark.parametrize(("body", "at"), [(b'{"name": "\xff"}', 10), ("{}".encode("utf-16"), 0), (b"\xed\xa0\x80", 0)])
def test_what_is_not_utf8_is_refused_at_the_byte(body: bytes, at: int) -> None:
    with pytest.raises(Rejected, match=f"not UTF-8 at byte {at}$") as refused:
        parse_json(body)
    assert (refused.value.field, refused.value.cause) == ("body", "not_utf8")


@given(body=st.binary(max_size=40))
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    try:
        parse_json(body)
    except Rejected as refused:
        assert refused.cause in ("not_json", "not_utf8")


@pytest.mark.parametrize("depth", [101, 500, 900, 985, 990, 995])
@pytest.mark.parametrize(("opens", "closes"), [("[", "]"), ('{"a":[', "]}")], ids=["lists", "objects"])
def test_what_is_nested_deeper_than_an_event_can_be_is_refused(depth: int, opens: str, closes: str) -> None:
    with pytest.raises(Rejected) as refused:
        parse_json((opens * depth + closes * depth).encode())
    assert (refused.value.field, refused.value.cause) in [("body", "too_deep"), ("body", "not_json")]


def test_what_is_deep_but_can_still_be_written_again_is_refused_as_an_event() -> None:
    assert parse_json(b"[" * 100 + b"]" * 100)
    with pytest.raises(Rejected):
        parse_event(parse_json(json.dumps(EVENT).replace('"R1"', "[" * 90 + "]" * 90).encode()), NOW)


# The envelope --------------------------------------------------------------------------------------------------------


def test_a_good_event_comes_through_with_its_times_in_utc() -> None:
    good = told(EVENT)
    assert (good.source, good.id, good.type) == ("/erp", "E1", "aftersale.requested")
    assert isinstance(good.data, AftersaleRequested)
    assert good.data.requested_at == datetime(2026, 3, 2, 7, 0, tzinfo=UTC)
    assert good.data.requested_at.tzinfo is UTC


@pytest.mark.parametrize("raw", [None, [], "event", 1, [EVENT]])
def test_what_is_not_an_object_is_no_event(raw: object) -> None:
    assert (refusal(raw).field, refusal(raw).cause) == ("body", "not_an_object")


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
def test_the_envelope_must_say_who_tells_what(name: str) -> None:
    for raw in (without(name), event(**{name: ""}), event(**{name: 7}), event(**{name: None}), event(**{name: "x" * 201})):
        assert (refusal(raw).field, refusal(raw).cause) == (name, "bad_envelope")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-03-02T07:00:00"}, "time"),
        ({"time": 1772434800}, "time"),
        ({"time": None}, "time"),
        ({"datacontenttype": 5}, "datacontenttype"),
        ({"subject": ""}, "subject"),
        ({"Bad-Name": "x"}, "Bad-Name"),
    ],
)
def test_a_bad_attribute_is_named(changes: dict[str, object], field: str) -> None:
    assert (refusal(event(**changes)).field, refusal(event(**changes)).cause) == (field, "bad_envelope")


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "\udfff"], ids=["nul", "high half", "low half"])
@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda text: event(id=text), "id"),
        (lambda text: event(source=text), "source"),
        (lambda text: with_data(note=text), "data.note"),
        (lambda text: with_line(line_id=text), "data.lines.0.line_id"),
        (lambda text: event(subject=text), "subject"),
        (lambda text: with_data(**{text: 1}), "data"),
    ],
)
def test_a_text_that_no_database_can_keep_is_refused_wherever_it_stands(
    make: Callable[[str], dict[str, Any]], field: str, text: str
) -> None:
    assert (refusal(make(text)).field, refusal(make(text)).cause) == (field, "unstorable")
    assert isinstance(told(with_data(note="坏了 😀 \t")), Event)


def test_what_is_shown_of_a_refused_text_can_be_stored() -> None:
    assert storable("a\0b\ud800c 😀") == "a\ufffdb\ufffdc 😀"


def test_an_event_that_is_wide_and_deep_takes_no_more_room_than_a_wide_one() -> None:
    nested = "[" * 80 + "0" + ",0" * 50_000 + "]" * 80
    raw = parse_json(json.dumps(with_data(lines="nested")).replace('"nested"', nested).encode())
    tracemalloc.start()
    with pytest.raises(Rejected):
        parse_event(raw, NOW)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 25_000_000


@pytest.mark.parametrize("time", ["9999-12-31T24:00:00Z"])
def test_an_envelope_time_beyond_the_calendar_is_refused(time: str) -> None:
    assert (refusal(event(time=time)).field, refusal(event(time=time)).cause) == ("time", "bad_envelope")


def test_an_unknown_type_is_refused_by_name() -> None:
    assert (refusal(event(type="order.cancelled")).field, refusal(event(type="order.cancelled")).cause) == (
        "type",
        "unknown_type",
    )
    assert "'order.cancelled' is not a type we take" in str(refusal(event(type="order.cancelled")))


# The data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [without("data"), event(data=None), event(data=[]), event(data="x")])
def test_an_event_without_an_object_of_data_is_refused(raw: dict[str, Any]) -> None:
    assert (refusal(raw).field, refusal(raw).cause) == ("data", "bad_data")


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (with_data(currency="cny"), "data.currency"),
        (with_data(currency="YUAN"), "data.currency"),
        (with_data(currency="CN"), "data.currency"),
        (with_data(currency="CNY\n"), "data.currency"),
        (with_line(quantity=0), "data.lines.0.quantity"),
        (with_line(quantity=-1), "data.lines.0.quantity"),
        (with_line(quantity=1.5), "data.lines.0.quantity"),
        (with_line(quantity=1_000_001), "data.lines.0.quantity"),
        (with_line(amount=0), "data.lines.0.amount"),
        (with_line(amount=-500), "data.lines.0.amount"),
        (with_line(amount=10**12 + 1), "data.lines.0.amount"),
        (with_line(amount="5 yuan"), "data.lines.0.amount"),
        (with_line(colour="red"), "data.lines.0.colour"),
        (with_data(comment="x"), "data.comment"),
        (with_data(kind="resend"), "data.kind"),
        (with_data(reason="It broke"), "data.reason"),
        (with_data(reference="R:1"), "data.reference"),
        (with_data(note="x" * 501), "data.note"),
        (with_data(lines=[]), "data.lines"),
        (with_data(lines=DATA["lines"] * 2), "data"),
        (with_data(lines=[{"quantity": 1}]), "data"),
        (with_data(requested_at="2026-03-02T15:00:00"), "data.requested_at"),
        (with_data(requested_at="2026-03-02"), "data.requested_at"),
        (event(data={key: value for key, value in DATA.items() if key != "merchant"}), "data.merchant"),
    ],
)
def test_bad_data_is_refused_naming_the_field(raw: dict[str, Any], field: str) -> None:
    assert (refusal(raw).field, refusal(raw).cause) == (field, "bad_data")


def test_the_first_of_several_complaints_is_told_and_the_others_are_counted() -> None:
    assert str(refusal(with_data(currency="cny", kind="resend"))).startswith("data.kind: ")
    assert str(refusal(with_data(currency="cny", kind="resend"))).endswith(" (and 1 more)")
    assert "more)" not in str(refusal(with_data(currency="cny")))


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (with_line(quantity=True), "data.lines.0.quantity"),
        (with_line(quantity="3"), "data.lines.0.quantity"),
        (with_line(amount="500"), "data.lines.0.amount"),
        (with_data(requested_at=1772434800), "data.requested_at"),
        (with_data(requested_at="1772434800"), "data.requested_at"),
    ],
)
def test_a_number_is_not_guessed_from_something_else_nor_a_time_from_a_number(raw: dict[str, Any], field: str) -> None:
    assert (refusal(raw).field, refusal(raw).cause) == (field, "bad_data")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_time_that_has_no_place_in_utc_is_refused(time: str) -> None:
    late = refusal(with_data(requested_at=time))
    assert (late.field or "").startswith("data")
    assert late.cause == "bad_data"


# Times ---------------------------------------------------------------------------------------------------------------


def test_what_has_happened_lies_no_further_in_the_future_than_clocks_differ() -> None:
    latest = NOW + CLOCK_SKEW
    assert isinstance(told(with_data(requested_at=latest.isoformat())), Event)
    late = refusal(with_data(requested_at=(latest + timedelta(seconds=1)).isoformat()))
    assert (late.field, late.cause) == ("data.requested_at", "far_future")


def test_a_deadline_lies_no_further_in_the_future_than_any_platform_gives() -> None:
    latest = NOW + LATEST_DEADLINE
    assert isinstance(told(with_data(deadline=latest.isoformat())), Event)
    late = refusal(with_data(deadline=(latest + timedelta(seconds=1)).isoformat()))
    assert (late.field, late.cause) == ("data.deadline", "far_future")
    moved = {name: DATA[name] for name in ("merchant", "channel", "reference")} | {"changed_at": DATA["requested_at"]}
    for deadline, good in ((latest, True), (latest + timedelta(seconds=1), False)):
        raw = event(type="aftersale.deadline_changed", data=moved | {"deadline": deadline.isoformat()})
        assert isinstance(told(raw), Event) if good else refusal(raw).field == "data.deadline"


# The fingerprint -----------------------------------------------------------------------------------------------------


@given(data=st.permutations(list(DATA)), line=st.permutations(list(DATA["lines"][0])), envelope=st.permutations(list(EVENT)))
def test_the_order_of_keys_does_not_make_another_event(data: list[str], line: list[str], envelope: list[str]) -> None:
    lines = [{key: DATA["lines"][0][key] for key in line}]
    shuffled = {key: (DATA | {"lines": lines})[key] for key in data}
    assert told({key: event(data=shuffled)[key] for key in envelope}).sha == told(EVENT).sha


def test_the_fingerprint_is_of_the_data_and_not_of_the_envelope() -> None:
    sha = told(EVENT).sha
    assert told(event(id="E2", source="/other", time="2026-03-01T00:00:00Z", subject="s")).sha == sha
    assert len({sha, told(with_data(reason="damaged")).sha, told(with_line(quantity=1)).sha}) == 3


# Anything ------------------------------------------------------------------------------------------------------------


@given(spot=st.sampled_from(SPOTS), value=JSON)
def test_whatever_stands_in_any_place_the_event_is_taken_or_refused_with_a_field(spot: str, value: object) -> None:
    raw = with_data(**{spot.removeprefix("data."): value}) if spot.startswith("data.") else event(**{spot: value})
    try:
        taken = parse_event(raw, NOW)
    except Rejected as refused:
        assert refused.field and str(refused)
    else:
        assert len(taken.sha) == 64
