"""The `aftersales` command. Every error that we know is one line with the next step and exit status 2."""

import sys

import click
import typer

from cli import act, books, events, reads, run
from cli.output import errors
from domain.errors import AftersalesError
from engine.logs import configure
from settings import load

app = typer.Typer(
    name="aftersales",
    help="A merchant's after-sales desk: every refund and return is one durable case.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (run, events, reads, act, books):
    part.add_to(app)


def main() -> None:
    """The entry point: errors are told, not dumped."""
    try:
        configure(load(log_level="warning"))  # to standard error; `up` and `serve` say more
        app(standalone_mode=True)
    except AftersalesError as error:
        errors.print(f"aftersales: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
    except click.exceptions.Abort:
        sys.exit(130)
