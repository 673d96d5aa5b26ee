"""The documents are held to the code: examples validate, causes and actions are the real ones, commands and links exist."""

import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from jsonschema import Draft202012Validator, FormatChecker
from pydantic import BaseModel

from cli.main import app
from domain.attention import CAUSES
from domain.envelope import parse_event
from domain.events import EVENT_TYPES
from web.schema import envelope_schema

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EVENTS, RUNBOOK = (ROOT / "docs" / name for name in ("events.md", "runbook.md"))
NOW = datetime(2026, 4, 1, tzinfo=UTC)

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
formats = FormatChecker()


@formats.checks("date-time", raises=ValueError)
def _has_a_zone(at: object) -> bool:
    return not isinstance(at, str) or datetime.fromisoformat(at).tzinfo is not None


def text(document: Path) -> str:
    return document.read_text("utf-8")


def sections(document: Path, heading: str) -> dict[str, str]:
    """What stands under each heading that the pattern names (its group is the key), up to the next heading."""
    parts = re.split(r"^(#+ .*)$", text(document), flags=re.MULTILINE)
    found = [(re.fullmatch(heading, title), body) for title, body in zip(parts[1::2], parts[2::2], strict=True)]
    return {match[1]: body for match, body in found if match}


def examples() -> list[tuple[str, Any]]:
    """(the heading that it stands under, the example)."""
    return [
        (type_, json.loads(block))
        for type_, body in sections(EVENTS, r"### ([a-z_]+\.[a-z_]+)").items()
        for block in re.findall(r"```json\n(.*?)```", body, re.DOTALL)
    ]


# docs/events.md ---------------------------------------------------------------------------------------------------------


def test_every_event_type_has_a_section_with_an_example_of_it_and_there_are_no_others() -> None:
    assert list(sections(EVENTS, r"### ([a-z_]+\.[a-z_]+)")) == list(EVENT_TYPES)
    assert [(type_, example["type"]) for type_, example in examples()] == [(type_, type_) for type_ in EVENT_TYPES]
    assert text(EVENTS).count("```json") == len(examples()), "an example stands under no type"


@pytest.mark.parametrize(("type_", "example"), examples())
def test_every_example_is_an_event_that_the_intake_takes_and_the_schema_allows(type_: str, example: Any) -> None:
    assert parse_event(example, NOW).type == type_
    Draft202012Validator(envelope_schema(type_), format_checker=formats).validate(example)


@pytest.mark.parametrize("type_", EVENT_TYPES)
def test_every_field_of_a_type_is_in_its_table_and_no_other(type_: str) -> None:
    body = sections(EVENTS, r"### ([a-z_]+\.[a-z_]+)")[type_]
    rows = re.findall(r"^\| (`[^|]*) \|", body, re.MULTILINE)
    told = [name for row in rows for name in re.findall(r"`([a-z_.]+)`", row)]
    assert sorted(told) == sorted(_fields(EVENT_TYPES[type_]))


def _fields(model: type[BaseModel]) -> list[str]:
    """`currency`, `lines`, `lines.sku`, `buyer.name`: what a sender fills in."""
    names = []
    for name, field in model.model_fields.items():
        inner = [shape for shape in _shapes(field.annotation) if isinstance(shape, type) and issubclass(shape, BaseModel)]
        several = field.annotation not in inner
        names += [name] if several or not inner else []
        names += [f"{name}.{deeper}" for shape in inner for deeper in _fields(shape)]
    return names


def _shapes(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [shape for part in inner for shape in _shapes(part)] if inner else [annotation]


# docs/runbook.md --------------------------------------------------------------------------------------------------------


def test_every_cause_of_attention_has_a_section_in_the_runbook_and_there_are_no_others() -> None:
    assert list(sections(RUNBOOK, r"## `([a-z_]+)`")) == list(CAUSES)


@pytest.mark.parametrize("cause", CAUSES)
def test_the_section_of_a_cause_shows_each_action_that_it_allows_and_no_other(cause: str) -> None:
    shown = re.findall(r"--action ([a-z-]+)", sections(RUNBOOK, r"## `([a-z_]+)`")[cause])
    assert set(shown) == {action.value for action in CAUSES[cause].actions}


# All documents ----------------------------------------------------------------------------------------------------------


def command_lines() -> list[tuple[str, str]]:
    """(document, command line) of all with arguments that is shown as code and can be typed as it stands."""
    found = []
    for document in DOCUMENTS:
        for code in re.findall(r"(?<!`)`((?:\.venv/bin/)?aftersales\s[^`]+)`(?!`)", text(document)):
            line = " ".join(code.split())
            if line.count(" ") > 1 and "…" not in line and not re.search(r" [A-Z]+(?= |$)", line.replace(" ID", "")):
                found.append((document.name, line))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_named_exists(document: Path) -> None:
    prose = re.sub(r"```mermaid.*?```", "", text(document), flags=re.DOTALL)
    named = set(re.findall(r"(?:(?<![\w/.@=-])|(?<=\.venv/bin/))aftersales\s+([a-z]+)", prose))
    assert named <= set(COMMANDS)


@pytest.mark.parametrize(("document", "line"), sorted(set(command_lines())))
def test_every_command_line_that_is_shown_is_understood(document: str, line: str) -> None:
    _, name, *arguments = shlex.split(line)
    COMMANDS[name].make_context(name, arguments)


def test_the_documents_do_show_command_lines() -> None:
    assert {document for document, _ in command_lines()} >= {"events.md", "runbook.md"}
    assert len(command_lines()) > 60


def test_every_relative_link_leads_to_a_file() -> None:
    links = [(one, link) for one in DOCUMENTS for link in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text(one))]
    assert [(one.name, link) for one, link in links if not (one.parent / link).exists()] == []
    assert {one.name for one, _ in links} >= {"README.md", "events.md", "runbook.md"}
