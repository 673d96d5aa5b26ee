"""The migrations on both databases: every step up, down and up again, and no table that the models do not know."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, make_url, select, text

from db.migrate import config, upgrade
from db.models import AccountRow, Base
from db.session import Database
from domain.errors import DependencyDown
from domain.ledger import CHART


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    admin = request.getfixturevalue("postgres")
    name = f"m{uuid.uuid4().hex[:12]}"
    engine = create_engine(admin, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        yield make_url(admin).set(database=name).render_as_string(hide_password=False)
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


def tables(url: str) -> dict[str, set[str]]:
    """Table → its columns and indexes."""
    engine = create_engine(url)
    look = inspect(engine)
    found = {
        name: {str(part["name"]) for part in [*look.get_columns(name), *look.get_indexes(name)]}
        for name in look.get_table_names()
        if name != "alembic_version"
    }
    engine.dispose()
    return found


def test_every_revision_goes_up_and_down_and_up_again(empty: str) -> None:
    revisions = list(ScriptDirectory.from_config(config(empty)).walk_revisions())[::-1]
    assert revisions
    for revision in revisions:
        before = tables(empty)
        command.upgrade(config(empty), revision.revision)
        after = tables(empty)
        assert after != before
        command.downgrade(config(empty), "-1")
        assert tables(empty) == before
        command.upgrade(config(empty), revision.revision)
        assert tables(empty) == after

    assert set(tables(empty)) == set(Base.metadata.tables)
    command.downgrade(config(empty), "base")
    assert tables(empty) == {}


def test_the_models_and_the_migrations_say_the_same(records_url: str) -> None:
    command.check(config(records_url))


async def test_upgrading_twice_changes_nothing_and_keeps_what_is_there(records_url: str) -> None:
    engine = create_engine(records_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE accounts SET en = 'Renamed by finance' WHERE code = 'stock'"))
    upgrade(records_url)
    with engine.begin() as connection:
        rows: dict[str, str] = dict(connection.execute(text("SELECT code, en FROM accounts")).all())
    engine.dispose()

    assert set(rows) == set(CHART)
    assert rows["stock"] == "Renamed by finance"


async def test_the_chart_of_accounts_is_filled_in_both_languages(db: Database) -> None:
    async with db.read() as session:
        rows = {row.code: (row.name, row.en, row.zh) for row in await session.scalars(select(AccountRow))}

    assert rows == CHART


SECRET = "s3cr%t-w0rd"
NOWHERE = make_url("postgresql+psycopg://aftersales@127.0.0.1:1/aftersales?connect_timeout=2").set(password=SECRET)


def _in_one_line(error: DependencyDown) -> None:
    assert "is not usable: connection" in error.message
    assert "aftersales:***@127.0.0.1:1" in error.message
    assert "\n" not in error.message
    assert "s3cr" not in error.message


def test_a_database_that_is_not_there_is_told_in_one_line_without_its_password() -> None:
    with pytest.raises(DependencyDown) as down:
        upgrade(NOWHERE.render_as_string(hide_password=False))

    _in_one_line(down.value)


@pytest.mark.parametrize("writing", [True, False])
async def test_records_that_are_not_there_are_told_in_one_line_without_their_password(writing: bool) -> None:
    away = Database(NOWHERE.render_as_string(hide_password=False))

    with pytest.raises(DependencyDown) as down:
        async with away.write() if writing else away.read() as session:
            await session.execute(text("SELECT 1"))

    _in_one_line(down.value)
    await away.close()


def test_a_file_that_is_no_database_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "records.db").write_bytes(b"no database " * 1_000)

    with pytest.raises(DependencyDown, match=r"records\.db is not usable: file is not a database"):
        upgrade(f"sqlite:///{tmp_path / 'records.db'}")
