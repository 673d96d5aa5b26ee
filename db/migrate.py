"""Bringing the records' tables to the newest version."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import DatabaseError, OperationalError

from db.models import AccountRow
from db.session import insert_for
from domain.errors import DependencyDown
from domain.ledger import CHART


def config(url: str) -> Config:
    """Alembic's configuration for a database URL."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    made.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return made


def upgrade(url: str) -> None:
    """Make or upgrade the tables, and fill the chart of accounts; safe to repeat. Raises `DependencyDown`."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)
    try:
        if engine.dialect.name == "sqlite":
            with engine.connect() as connection:  # kept in the file: nobody has to change it while others read
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        command.upgrade(config(url), "head")
        with engine.begin() as connection:
            rows = [{"code": code, "name": name, "en": en, "zh": zh} for code, (name, en, zh) in CHART.items()]
            connection.execute(insert_for(engine.dialect.name)(AccountRow).values(rows).on_conflict_do_nothing())
    except DatabaseError as error:
        if type(error) not in (OperationalError, DatabaseError):  # a plain one says that the file is no database
            raise
        raise DependencyDown(
            f"the database {parsed.render_as_string()} is not usable: {str(error.orig).splitlines()[0]}"
        ) from error
    finally:
        engine.dispose()
