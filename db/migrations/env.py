"""Alembic's entry: the URL and the tables are ours, the connection is made here."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import create_engine

from db.models import Base, Enum, Json, UtcDateTime

config = context.config


_PLAIN = {Enum: "sa.String(32)", Json: "sa.Text()", UtcDateTime: "sa.DateTime(timezone=True)"}


def _plain_types(kind: str, item: Any, _: AutogenContext) -> str | Literal[False]:
    """Migrations speak of plain columns, so that they outlive our types."""
    return _PLAIN.get(type(item), False) if kind == "type" else False


def run() -> None:
    engine = create_engine(str(config.get_main_option("sqlalchemy.url")).replace("%%", "%"))
    with engine.begin() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            render_as_batch=True,
            compare_type=True,
            render_item=_plain_types,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
