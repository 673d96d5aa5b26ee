"""Sessions on the records: SQLite in a file or PostgreSQL, the same code on both.

SQLite has one writer at a time. Here writers of one process wait in the pool for the one writing connection, fairly and
without polling; `BEGIN IMMEDIATE` makes writers of other processes wait at the start of a transaction, where nothing is
lost by it. Readers have connections of their own and never wait (WAL).

Errors hide their parameters: a buyer's data stands in them, and errors go to logs.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from domain.errors import DependencyDown


class Database:
    """`async with db.write() as session:` commits at the end or rolls back; `db.read()` only reads."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.url = make_url(url)
        if self.url.get_backend_name() == "sqlite":
            Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)
            self._writing = _sqlite(url, "BEGIN IMMEDIATE", pool_size=1, async_creator_fn=_writer)
            self._reading = _sqlite(url, "BEGIN", pool_size=4)
        else:
            self._writing = create_async_engine(
                self.url, pool_size=pool_size, max_overflow=0, pool_pre_ping=True, hide_parameters=True
            )
            self._reading = self._writing
        self._writers = async_sessionmaker(self._writing, expire_on_commit=False, autoflush=False)
        self._readers = async_sessionmaker(self._reading, expire_on_commit=False, autoflush=False)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        async with _reachable(self.url.render_as_string()), self._writers() as session, session.begin():
            yield session

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        async with _reachable(self.url.render_as_string()), self._readers() as session:
            yield session

    async def close(self) -> None:
        await self._writing.dispose()
        await self._reading.dispose()


@asynccontextmanager
async def _reachable(url: str) -> AsyncIterator[None]:
    """A database that is gone is `DependencyDown`, whatever the driver calls it. A commit whose answer was lost may have
    been done: everything written here is keyed, so that doing it again is safe."""
    try:
        yield
    except DBAPIError as error:
        if error.connection_invalidated or "OperationalError" in type(error.orig).__name__ or _refused(error):
            raise DependencyDown(f"the database {url} is not usable: {str(error.orig).splitlines()[0]}") from error
        raise


def _refused(error: DBAPIError) -> bool:
    return type(error).__name__ in ("OperationalError", "InterfaceError", "DatabaseError")


class _Writer(aiosqlite.Connection):
    """Goes to its thread with all that may wait, for the lock or for the disk. Within its transaction, which holds the lock,
    a statement does not: the way to the thread and back, four times a statement, would cost more than the statement.
    Readers, whose queries may be long, always go there."""

    async def _execute(self, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        holds_lock = self._connection is not None and self._connection.in_transaction
        if holds_lock and fn.__name__ not in ("commit", "rollback"):
            return fn(*args, **options)
        return await super()._execute(fn, *args, **options)  # type: ignore[no-untyped-call]


def _writer(*args: Any, **options: Any) -> _Writer:
    connection = _Writer(lambda: sqlite3.connect(*args, **options), iter_chunk_size=64)
    connection._thread.daemon = True  # as SQLAlchemy has it with those that it makes
    return connection


def _sqlite(url: str, begin: str, *, pool_size: int, **options: Any) -> AsyncEngine:
    engine = create_async_engine(
        make_url(url).set(drivername="sqlite+aiosqlite"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=60,
        hide_parameters=True,
        connect_args=options,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _set_up(connection: Any, _: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        # Straight to the driver: a cursor of SQLAlchemy's would go to its thread three times for one word.
        connection.connection.run_async(lambda driver: driver.execute(begin))

    return engine


def insert_for(dialect: str) -> Callable[..., Any]:
    """The dialect's INSERT, which knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return sqlite.insert if dialect == "sqlite" else postgresql.insert


def insert(session: AsyncSession) -> Callable[..., Any]:
    """`insert_for` the session's database."""
    return insert_for(session.get_bind().dialect.name)
