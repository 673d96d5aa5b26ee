"""Messages from templates: `templates/{name}.{locale}.txt`, the first line the subject, the rest the text."""

from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, TemplateNotFound

from domain.cases import Model
from domain.errors import NotFound

_FOLDER = files(__package__) / "templates"


class MessageFacts(Model):
    """All that a template may speak of. `amount` is formatted for people; empty texts are left out by the templates."""

    case_no: str
    order_id: str
    amount: str = ""
    address: str = ""
    reason: str = ""
    deadline: str = ""


def _load(name: str) -> str | None:
    path = _FOLDER / name
    return path.read_text(encoding="utf-8") if path.is_file() else None


@cache
def _environment() -> Environment:
    return Environment(loader=FunctionLoader(_load), undefined=StrictUndefined, autoescape=False, trim_blocks=True)


def render(template: str, locale: str, facts: MessageFacts) -> tuple[str, str]:
    """(subject, text). Raises `NotFound` for a template that does not exist."""
    try:
        whole = _environment().get_template(f"{template}.{locale}.txt").render(facts.model_dump())
    except TemplateNotFound as error:
        raise NotFound(f"there is no message template {error.name}") from error
    subject, _, text = whole.partition("\n")
    return subject.strip(), text.strip() + "\n"
