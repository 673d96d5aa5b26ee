"""The CloudEvents 1.0 envelope around an event, and all that can be said against it before it touches anything."""

import hashlib
import json
import re
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.v1.event import CloudEvent
from dateutil.parser import isoparse
from pydantic import BaseModel, ValidationError

from domain.errors import Rejected
from domain.events import EVENT_TYPES, EventData

LATEST_DEADLINE = timedelta(days=400)
"""A deadline later than this is a mistake in the sender's clock or units."""
CLOCK_SKEW = timedelta(days=1)
"""What has happened cannot lie further in the future than clocks differ."""
_DEEPEST = 100
"""How deep a body may be nested; an event needs five."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""NUL, and halves of characters: JSON can say them, PostgreSQL and UTF-8 cannot hold them."""


_Path = tuple[Any, str | int] | None
"""The way to a part of an event, as (the way to what holds it, its name there): made without copying."""


class Event(NamedTuple):
    """A valid event. `sha` stands for type and data, so that a repeat can be told from another event under its id."""

    source: str
    id: str
    type: str
    data: EventData
    sha: str


def parse_json(body: bytes) -> Any:
    """JSON from bytes; `Rejected` for anything else, invalid UTF-8 and NaN among it."""
    try:
        raw = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Rejected(f"not UTF-8 at byte {error.start}", field="body", cause="not_utf8") from error
    except (ValueError, RecursionError) as error:
        raise Rejected(f"not JSON: {error}", field="body", cause="not_json") from error
    if _depth(raw) > _DEEPEST:  # what was just read could not be written again a few calls further in
        raise Rejected(f"nested deeper than {_DEEPEST}", field="body", cause="too_deep")
    return raw


def _depth(raw: Any) -> int:
    depth, layer = 0, [raw]
    while layer := [part for part in layer if isinstance(part, dict | list)]:
        depth += 1
        layer = [item for part in layer for item in (part.values() if isinstance(part, dict) else part)]
    return depth


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def storable(text: str) -> str:
    """The text with a mark wherever it says what cannot be stored."""
    return _UNSTORABLE.sub("\ufffd", text)


def parse_event(raw: Any, now: datetime) -> Event:
    """A decoded JSON object as an event. Raises `Rejected` with the field and the reason."""
    if not isinstance(raw, dict):
        raise Rejected("an event is a JSON object", field="body", cause="not_an_object")
    _check_texts(raw)
    envelope = _envelope(raw)
    model = EVENT_TYPES.get(envelope.get_type())
    if model is None:
        raise Rejected(f"{envelope.get_type()!r} is not a type we take", field="type", cause="unknown_type")
    try:
        data = model.model_validate_json(json.dumps(raw.get("data")), extra="forbid")
    except ValidationError as error:
        raise _first(error) from error
    except OverflowError as error:
        raise Rejected("a time lies beyond the calendar", field="data", cause="bad_data") from error
    _check_times(data, now)
    canonical = json.dumps([envelope.get_type(), raw["data"]], sort_keys=True, separators=(",", ":"))
    sha = hashlib.sha256(canonical.encode()).hexdigest()
    return Event(envelope.get_source(), envelope.get_id(), envelope.get_type(), data, sha)


def _check_texts(raw: dict[str, Any]) -> None:
    parts: list[tuple[_Path, Any]] = [(None, raw)]
    while parts:
        where, part = parts.pop()
        if isinstance(part, dict):
            parts += [(where, name) for name in part] + [((where, name), item) for name, item in part.items()]
        elif isinstance(part, list):
            parts += [((where, index), item) for index, item in enumerate(part)]
        elif isinstance(part, str) and _UNSTORABLE.search(part):
            names: list[str] = []
            while where:
                where, name = where
                names.insert(0, str(name))
            field = storable(".".join(names)) or "body"
            raise Rejected("a text with NUL or half a character cannot be stored", field=field, cause="unstorable")


def _envelope(raw: dict[str, Any]) -> CloudEvent:
    for name in ("specversion", "id", "source", "type"):  # the SDK would make up an id of its own
        if not isinstance(raw.get(name), str) or not raw[name] or len(raw[name]) > 200:
            raise Rejected("is required: a text of 1 to 200 characters", field=name, cause="bad_envelope")
    attributes = {name: value for name, value in raw.items() if name not in ("data", "data_base64")}
    if attributes["specversion"] != "1.0":
        raise Rejected(f"{attributes['specversion']!r} is not 1.0", field="specversion", cause="bad_envelope")
    try:
        if "time" in attributes:
            attributes["time"] = isoparse(str(attributes["time"]))
        return CloudEvent(attributes, raw.get("data"))
    except CloudEventValidationError as error:
        name, problems = next(iter(error.errors.items()))
        raise Rejected(str(problems[0]), field=name, cause="bad_envelope") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise Rejected(f"not an RFC 3339 time: {attributes['time']!r}", field="time", cause="bad_envelope") from error


def _first(error: ValidationError) -> Rejected:
    """The first complaint names its field; the others are counted."""
    first, *others = error.errors(include_url=False, include_input=False)
    field = ".".join(["data", *map(str, first["loc"])])
    more = f" (and {len(others)} more)" if others else ""
    return Rejected(first["msg"].removeprefix("Value error, ") + more, field=field, cause="bad_data")


def _check_times(data: BaseModel, now: datetime) -> None:
    for name, value in data:
        if isinstance(value, datetime):
            latest = now + (LATEST_DEADLINE if name == "deadline" else CLOCK_SKEW)
            if value > latest:
                reason = f"{value.isoformat()} lies too far in the future"
                raise Rejected(reason, field=f"data.{name}", cause="far_future")
