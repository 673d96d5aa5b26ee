"""The published JSON Schema of each event type, from the models that the intake validates by."""

from typing import Any

from domain.events import EVENT_TYPES


def data_schema(type_name: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of a type's `data`. Raises `KeyError` for an unknown type."""
    schema = EVENT_TYPES[type_name].model_json_schema()
    for shape in (schema, *schema.get("$defs", {}).values()):
        if shape.get("type") == "object":
            shape["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": type_name, **schema}


def envelope_schema(type_name: str) -> dict[str, Any]:
    """JSON Schema of a whole event; the `data` schema stands in it with its definitions."""
    text = {"type": "string", "minLength": 1, "maxLength": 200}
    return {
        "type": "object",
        "title": type_name,
        "required": ["specversion", "id", "source", "type", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text,
            "source": text,
            "type": {"const": type_name},
            "time": {"type": "string", "format": "date-time"},
            "data": _inlined(data_schema(type_name)),
        },
    }


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without `$defs`: every reference replaced by what it names (ours never recur)."""
    definitions = schema.pop("$defs", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return resolve(definitions[part["$ref"].rpartition("/")[2]])
            return {name: resolve(value) for name, value in part.items()}
        return [resolve(item) for item in part] if isinstance(part, list) else part

    schema.pop("$schema", None)
    resolved: dict[str, Any] = resolve(schema)
    return resolved
