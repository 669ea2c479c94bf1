"""
A reader cannot write: Python refuses what it can see, the server the rest, and `ping` says what neither stops.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, delete, insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError
from sqlalchemy.orm import Session, registry
from sqlalchemy.schema import CreateTable, DropTable

from stillroom import Databases
from stillroom.classification import Kind, classify
from stillroom.errors import PropagationError, ReadOnlyError
from tests.support import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stillroom.testing.servers import PostgresPair

metadata = MetaData()
notes = Table("notes", metadata, Column("id", Integer, primary_key=True), Column("body", String(50)))
other = Table("other", metadata, Column("id", Integer, primary_key=True))


class Note:
    """
    A mapped row.
    """

    id: int
    body: str


registry(metadata=metadata).map_imperatively(Note, notes)

BACKENDS = ("sqlite", "postgresql", "mariadb")

FUNCTIONS = {
    "sqlite": (),
    "postgresql": (
        "create sequence numbers",
        """create function write_note() returns integer language sql as
        $$ insert into notes values (99, 'function') returning id $$""",
    ),
    "mariadb": (
        "create sequence numbers",
        """create function write_note() returns integer modifies sql data
        begin insert into notes values (99, 'function'); return 99; end""",
    ),
}


def configured(url: str, **settings: Any) -> Databases:
    return Databases({"databases": {"main": {"url": url, **settings}}})


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest) -> str:
    """
    A database with one note, a sequence and a function that writes.
    """
    made = str(request.getfixturevalue(f"{backend}_database"))
    fill(made, backend)
    return made


def fill(url: str, backend: str) -> None:
    with configured(url) as dbs, dbs.main.begin() as connection:
        metadata.create_all(connection, tables=[notes])
        connection.execute(insert(notes).values(id=1, body="first"))
        for statement in FUNCTIONS[backend]:
            connection.exec_driver_sql(statement)


def state_of(url: str) -> tuple[list[tuple[int, str]], int]:
    """
    Return the notes, and how many tables there are.
    """
    with configured(url) as dbs, dbs.unit_of_work() as uow:
        found = [tuple(row) for row in uow.main.execute(select(notes.c.id, notes.c.body).order_by(notes.c.id))]
        tables = "sqlite_master where type = 'table'"
        if not url.startswith("sqlite"):
            schema = "current_schema()" if url.startswith("postgresql") else "database()"
            tables = f"information_schema.tables where table_schema = {schema} and table_type = 'BASE TABLE'"
        return found, int(uow.main.scalar(text(f"select count(*) from {tables}")) or 0)


UNTOUCHED = ([(1, "first")], 1)


def flush(session: Session) -> None:
    session.add(_note(2, "flushed"))
    session.flush()


def flush_a_change(session: Session) -> None:
    session.get_one(Note, 1).body = "changed"
    session.flush()


def flush_a_removal(session: Session) -> None:
    session.delete(session.get_one(Note, 1))
    session.flush()


def _note(number: int, body: str) -> Note:
    note = Note()
    note.id, note.body = number, body
    return note


def core(statement: Any) -> Callable[[Session], None]:
    def run(session: Session) -> None:
        session.execute(statement).close()

    return run


def bulk(session: Session) -> None:
    session.execute(insert(Note), [{"id": 2, "body": "bulk"}, {"id": 3, "body": "bulk"}])


def driver_sql(session: Session) -> None:
    session.connection().exec_driver_sql("insert into notes values (2, 'driver')")


removed = delete(notes).where(notes.c.id == 1).returning(notes.c.id).cte("removed")

EVERYWHERE: dict[str, Callable[[Session], None]] = {
    "flush of a new row": flush,
    "flush of a change": flush_a_change,
    "flush of a removal": flush_a_removal,
    "bulk insert": bulk,
    "Core insert": core(insert(notes).values(id=2, body="core")),
    "Core update": core(update(notes).values(body="core")),
    "Core delete": core(delete(notes)),
    "DDL": core(CreateTable(other)),
    "DDL drop": core(DropTable(notes)),
    "text insert": core(text("insert into notes values (2, 'text')")),
    "text update": core(text("update notes set body = 'text'")),
    "text delete": core(text("delete from notes")),
    "text DDL": core(text("create table other (id integer)")),
    "text truncate or drop": core(text("drop table notes")),
    "driver's SQL": driver_sql,
}
SERVERS = {
    "nextval": core(text("select nextval('numbers')")),
    "writing function": core(text("select write_note()")),
    "FOR UPDATE": core(select(notes).with_for_update()),
    "text FOR UPDATE": core(text("select * from notes for update")),
}
ATTEMPTS: dict[str, dict[str, Callable[[Session], None]]] = {
    "sqlite": EVERYWHERE,
    "postgresql": EVERYWHERE
    | SERVERS
    | {
        "FOR SHARE": core(select(notes).with_for_update(read=True)),
        "DML in a CTE": core(select(removed)),
        "text DML in a CTE": core(text("with removed as (delete from notes returning id) select id from removed")),
        "select into": core(text("select * into other from notes")),
        "explain analyze": core(text("explain analyze insert into notes values (2, 'explained')")),
    },
    "mariadb": EVERYWHERE | SERVERS | {"nextval": core(text("select nextval(numbers)"))},
}

WAYS = [(backend, name) for backend, attempts in ATTEMPTS.items() for name in attempts]


@pytest.mark.parametrize(("backend", "name"), WAYS)
def test_a_reader_is_refused(backend: str, name: str, request: pytest.FixtureRequest) -> None:
    url = str(request.getfixturevalue(f"{backend}_database"))
    fill(url, backend)
    with configured(url) as dbs:
        for snapshot in (False, True):
            unit = dbs.unit_of_work()
            with pytest.raises(ReadOnlyError), unit as uow:
                ATTEMPTS[backend][name](uow.session(role="reader", snapshot=snapshot))
        with dbs.unit_of_work() as uow:
            assert uow.reader.scalar(select(notes.c.body)) == "first"
    assert state_of(url) == UNTOUCHED


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_asynchronous_reader_is_refused_as_well(backend: str, request: pytest.FixtureRequest) -> None:
    url = str(request.getfixturevalue(f"{backend}_database"))
    fill(url, backend)

    async def run() -> list[str]:
        accepted = []
        async with configured(url) as dbs:
            for name, attempt in ATTEMPTS[backend].items():
                for snapshot in (False, True):
                    try:
                        async with dbs.async_unit_of_work() as uow:
                            await uow.session(role="reader", snapshot=snapshot).run_sync(attempt)
                    except ReadOnlyError:
                        continue
                    accepted.append(name)
            async with dbs.async_unit_of_work() as uow:
                assert await uow.reader.scalar(select(notes.c.body)) == "first"
        return accepted

    assert asyncio.run(run()) == []
    assert state_of(url) == UNTOUCHED


def test_the_driver_s_own_connection_is_refused_by_the_server_in_the_driver_s_words(url: str) -> None:
    with configured(url) as dbs:
        with dbs.unit_of_work() as uow:
            uow.reader.scalar(select(1))
            cursor: Any = uow.reader.connection().connection.cursor()
            with pytest.raises(Exception, match=r"(?i)read.?only") as caught:
                cursor.execute("insert into notes values (2, 'raw')")
            cursor.close()
        assert classify(caught.value) is Kind.READ_ONLY
        assert not isinstance(caught.value, DBAPIError)
        with dbs.unit_of_work() as uow:
            assert uow.reader.scalar(select(notes.c.body)) == "first"
    assert state_of(url) == UNTOUCHED


def test_what_python_can_see_is_refused_before_it_is_sent_with_the_remedy(url: str) -> None:
    with configured(url) as dbs, pytest.raises(ReadOnlyError) as caught, dbs.unit_of_work() as uow:
        uow.reader.execute(insert(notes).values(id=2, body="core"))
    assert "a reader of 'main' cannot write; the statement was not sent" in str(caught.value)
    assert "Write through the writer: uow.main" in str(caught.value)
    assert isinstance(caught.value, OperationalError)
    assert isinstance(caught.value, InternalError)


def test_a_unit_that_is_read_only_has_readers_and_no_writer(url: str) -> None:
    with configured(url) as dbs, dbs.unit_of_work(read_only=True) as uow:
        assert uow.main is uow.reader is uow.any
        with pytest.raises(PropagationError, match="read only"):
            _ = uow.writer
        with pytest.raises(ReadOnlyError):
            uow.main.execute(text("delete from notes"))
    assert state_of(url) == UNTOUCHED


def test_a_refused_reader_leaves_the_writer_of_its_unit_alone(url: str, backend: str) -> None:
    with configured(url) as dbs, dbs.unit_of_work() as uow:
        uow.main.execute(insert(notes).values(id=2, body="kept"))
        with pytest.raises(ReadOnlyError):
            uow.reader.execute(text("delete from notes"))
        assert uow.reader.scalar(text("select count(*) from notes")) == 1
    assert state_of(url) == ([(1, "first"), (2, "kept")], 1)


# --- a rung that can be left, and one that cannot

UNLOCKING = {
    "sqlite": "pragma query_only = off",
    "postgresql": "set default_transaction_read_only = off",
    "mariadb": "set session transaction read write",
}

NAMED_IN_GAPS = {
    "sqlite": "PRAGMA query_only=OFF",
    "postgresql": "SET default_transaction_read_only = off",
    "mariadb": "SET SESSION TRANSACTION READ WRITE",
}


def test_what_one_reader_switches_off_is_on_again_for_the_next(url: str, backend: str) -> None:
    with configured(url, pool_size=1, max_overflow=0) as dbs:
        with dbs.unit_of_work() as uow:
            uow.reader.execute(text(UNLOCKING[backend]))
        with pytest.raises(ReadOnlyError), dbs.unit_of_work() as uow:
            uow.reader.execute(text("delete from notes"))
    assert state_of(url) == UNTOUCHED


def test_what_one_asynchronous_reader_switches_off_is_on_again_for_the_next(url: str, backend: str) -> None:
    async def run() -> None:
        async with configured(url, pool_size=1, max_overflow=0) as dbs:
            async with dbs.async_unit_of_work() as uow:
                await uow.reader.execute(text(UNLOCKING[backend]))
            with pytest.raises(ReadOnlyError):
                async with dbs.async_unit_of_work() as uow:
                    await uow.reader.execute(text("delete from notes"))

    asyncio.run(run())
    assert state_of(url) == UNTOUCHED


def test_ping_says_that_a_reader_can_switch_off_what_keeps_it_from_writing(url: str, backend: str) -> None:
    with configured(url) as dbs:
        writer, reader = dbs.ping()
        assert (writer.read_only, writer.read_only_gaps) == ("none", ())
        assert reader.read_only == "connection"
        assert any(NAMED_IN_GAPS[backend] in gap for gap in reader.read_only_gaps)
        # It is the truth: without rights of its own to stop it, the reader writes.
        with dbs.unit_of_work() as uow:
            uow.reader.execute(text(UNLOCKING[backend]))
            uow.reader.execute(text("insert into notes values (2, 'gap')"))
    assert state_of(url)[0] == [(1, "first"), (2, "gap")]


@contextlib.contextmanager
def login_without_rights(url: str, backend: str) -> Iterator[str]:
    """
    Make a login that may read the database and do nothing else; yield its URL.
    """
    name = servers.unique_name()[-20:]
    database = make_url(url).database
    if backend == "postgresql":
        create = [
            f"create role {name} login",
            f"grant select on all tables in schema public to {name}",
            "revoke create on schema public from public",
        ]
        drop = [f"drop owned by {name}", f"drop role {name}"]
        execute: Callable[..., None] = servers.postgresql_execute
    else:
        create = [f"create user {name}@'%' identified by 'pw'", f"grant select on {database}.* to {name}@'%'"]
        drop = [f"drop user {name}@'%'"]
        execute = servers.mariadb_execute
    execute(url, *create)
    password = "" if backend == "postgresql" else ":pw"
    parsed = make_url(url)
    try:
        yield f"{parsed.drivername}://{name}{password}@{parsed.host}:{parsed.port}/{database}"
    finally:
        execute(url, *drop)


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"])
def test_ping_says_that_a_login_without_rights_is_stopped_by_its_role(backend: str, url: str) -> None:
    with login_without_rights(url, backend) as login, configured(url, replicas=[login]) as dbs:
        writer, reader = dbs.ping()
    assert writer.read_only == "none"
    assert (reader.read_only, reader.error) == ("role", "")
    assert not any(NAMED_IN_GAPS[backend] in gap for gap in reader.read_only_gaps)


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"])
def test_a_role_without_rights_stops_what_the_connection_does_not(backend: str, url: str) -> None:
    with login_without_rights(url, backend) as login, configured(url, replicas=[login]) as dbs:
        with pytest.raises(DBAPIError) as caught, dbs.unit_of_work() as uow:
            uow.reader.execute(text(UNLOCKING[backend]))
            uow.reader.execute(text("insert into notes values (2, 'gap')"))
        assert classify(caught.value) is Kind.PERMISSION_DENIED
    assert state_of(url) == UNTOUCHED


def test_the_rung_is_not_the_role_while_one_column_may_be_written(url: str, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite has no logins")
    with login_without_rights(url, backend) as login:
        user = make_url(login).username
        if backend == "postgresql":
            servers.postgresql_execute(url, f"grant insert (body) on notes to {user}")
        else:
            servers.mariadb_execute(url, f"grant insert (body) on notes to {user}@'%'")
        with configured(url, replicas=[login]) as dbs:
            assert dbs.ping()[1].read_only == "connection"


# --- a pooler


@pytest.mark.parametrize("driver", ["psycopg", "psycopg_async", "asyncpg"])
def test_with_a_pooler_each_transaction_is_read_only_and_the_session_is_left_alone(
    postgresql_database: str, driver: str
) -> None:
    fill(postgresql_database, "postgresql")
    show = text("select current_setting('transaction_read_only'), current_setting('default_transaction_read_only')")

    async def run_async(url: str) -> tuple[str, str]:
        async with configured(url, pooler=True) as dbs:
            async with dbs.async_unit_of_work() as uow:
                found = (await uow.reader.execute(show)).one()
            with pytest.raises(ReadOnlyError):
                async with dbs.async_unit_of_work() as uow:
                    await uow.reader.execute(text("delete from notes"))
        return tuple(found)

    def run(url: str) -> tuple[str, str]:
        with configured(url, pooler=True) as dbs:
            with dbs.unit_of_work() as uow:
                found = uow.reader.execute(show).one()
            with pytest.raises(ReadOnlyError), dbs.unit_of_work() as uow:
                uow.reader.execute(text("delete from notes"))
        return tuple(found)

    named = postgresql_database.replace("postgresql://", f"postgresql+{driver}://")
    if driver == "psycopg":
        assert run(named) == ("on", "off")
    else:
        named = postgresql_database if driver == "psycopg_async" else named
        assert asyncio.run(run_async(named)) == ("on", "off")
    assert state_of(postgresql_database) == UNTOUCHED


# --- snapshots and replicas


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"])
def test_each_statement_of_a_reader_sees_the_newest_state_and_a_snapshot_sees_one(backend: str, url: str) -> None:
    count = text("select count(*) from notes")
    with configured(url) as dbs, dbs.unit_of_work() as reading:
        snapshot = reading.reader(snapshot=True)  # type: ignore[operator]  # a reader session can be called
        assert (snapshot.scalar(count), reading.reader.scalar(count)) == (1, 1)
        with dbs.unit_of_work() as uow:
            uow.main.execute(insert(notes).values(id=2, body="meanwhile"))
        assert (snapshot.scalar(count), reading.reader.scalar(count)) == (1, 2)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_reader_goes_to_the_replica_which_refuses_writes(pg_pair: PostgresPair, is_async: bool) -> None:
    where = text("select pg_is_in_recovery()")
    write = text("create table never (id integer)")
    dbs = configured(pg_pair.primary_url, replicas=[pg_pair.standby_url])

    async def run_async() -> tuple[Any, Any]:
        async with dbs:
            async with dbs.async_unit_of_work() as uow:
                found = await uow.reader.scalar(where), await uow.main.scalar(where)
            with pytest.raises(ReadOnlyError):
                async with dbs.async_unit_of_work() as uow:
                    await uow.reader.execute(write)
        return found

    def run() -> tuple[Any, Any]:
        with dbs:
            with dbs.unit_of_work() as uow:
                found = uow.reader.scalar(where), uow.main.scalar(where)
            with pytest.raises(ReadOnlyError), dbs.unit_of_work() as uow:
                uow.reader.execute(write)
            writer, reader = dbs.ping()
            assert (writer.recovering, reader.recovering) == (False, True)
            assert "once the standby is promoted" in reader.read_only_gaps[0]
        return found

    assert (asyncio.run(run_async()) if is_async else run()) == (True, False)


def test_a_standby_refuses_even_a_reader_that_has_switched_read_only_off(pg_pair: PostgresPair) -> None:
    dbs = configured(pg_pair.primary_url, replicas=[pg_pair.standby_url])
    with dbs, dbs.unit_of_work() as uow:
        uow.reader.execute(text(UNLOCKING["postgresql"]))
        with pytest.raises(ReadOnlyError):
            uow.reader.execute(text("create table never (id integer)"))
