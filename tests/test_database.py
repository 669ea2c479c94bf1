"""
Tests of one database: its engines, its models, its existence.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import MetaData, make_url, text
from sqlalchemy.exc import OperationalError

from stillroom import Database, NotDisposable, ReadOnlyError, Settings, SettingsError
from stillroom.testing.servers import free_port
from tests.support import servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def database(url: str, **settings: object) -> Database:
    return Database(Settings.from_mapping({"databases": {"main": {"url": url, **settings}}}, environ={})["main"])


# --- engines


def test_making_one_makes_no_engine_and_no_connection() -> None:
    alone = Database("postgresql://me:secret@127.0.0.1:1/nowhere")
    assert dict(alone.pools()) == {}
    assert repr(alone) == "<Database 'main' postgresql://me:***@127.0.0.1:1/nowhere>"


def test_a_bad_url_is_refused_when_it_is_made() -> None:
    with pytest.raises(SettingsError, match=r"databases\.main\.url"):
        Database("nonsense")


def test_engines_are_made_once(sqlite_database: str) -> None:
    with Database(sqlite_database) as alone:
        assert alone.engine is alone.engine
        assert alone.reader_engine is alone.reader_engine
        assert alone.engine is not alone.reader_engine


def test_many_threads_get_one_engine(sqlite_database: str) -> None:
    with Database(sqlite_database) as alone:
        start = threading.Barrier(8, timeout=10)
        found: list[int] = []

        def get() -> None:
            start.wait()
            found.append(id(alone.engine))

        threads = [threading.Thread(target=get) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found)) == 1


def test_a_script_needs_only_a_database(any_database: str) -> None:
    with Database(any_database) as alone:
        with alone.session() as session:
            session.execute(text("create table t (n int)"))
            session.execute(text("insert into t values (1)"))
        with alone.session(role="reader") as session:
            assert session.scalar(text("select n from t")) == 1
            with pytest.raises(ReadOnlyError):
                session.execute(text("insert into t values (2)"))
        with alone.begin() as connection:
            connection.execute(text("insert into t values (3)"))
        with alone.connect() as connection:
            assert connection.scalar(text("select count(*) from t")) == 2


def test_a_database_in_memory_is_one_for_all_threads() -> None:
    with Database("sqlite://") as alone:
        with alone.begin() as connection:
            connection.execute(text("create table t (n int)"))
        wrong: list[BaseException] = []

        def put() -> None:
            try:
                with alone.session() as session:
                    session.execute(text("insert into t values (1)"))
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=put) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        with alone.session(role="reader") as session:
            assert session.scalar(text("select count(*) from t")) == 8


def test_two_databases_in_memory_are_two() -> None:
    with Database("sqlite://") as one, Database("sqlite://") as other:
        with one.begin() as connection:
            connection.execute(text("create table t (n int)"))
        with pytest.raises(OperationalError, match="no such table"), other.session(role="reader") as session:
            session.execute(text("select * from t"))


def test_after_close_the_next_use_opens_new_connections(any_database: str) -> None:
    alone = Database(any_database)
    for _ in range(2):
        with alone.session() as session:
            assert session.scalar(text("select 1")) == 1
        alone.close()
    assert dict(alone.pools()) == {}


# --- ping


def test_a_ping_tells_of_both_roles(any_database: str) -> None:
    with Database(any_database) as alone:
        writer, reader = alone.ping()
    assert (writer.ok, writer.role, writer.read_only) == (True, "writer", "none")
    assert (reader.ok, reader.role, reader.read_only) == (True, "reader", "connection")
    assert writer.version
    assert writer.error == ""
    assert reader.read_only_gaps


def test_a_ping_of_a_server_that_is_down_says_why_and_no_secrets() -> None:
    port = free_port()
    with Database(f"postgresql://me:tell-nobody@127.0.0.1:{port}/shop") as alone:
        found = alone.ping()
    assert [each.ok for each in found] == [False, False]
    assert "refused" in found[0].error
    assert "tell-nobody" not in repr(found)


def test_a_ping_of_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with Database(f"sqlite:///{tmp_path}/missing/x.db") as alone:
        assert "unable to open database file" in alone.ping()[0].error


# --- create, drop, recreate


ODD = 'sr "odd" `name`; -- %s 100% $a'


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def odd_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """
    The URL of a database that does not exist, with a name that needs quoting; dropped at the end.
    """
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/new folder/odd name.db"
        return
    admin = make_url(request.getfixturevalue(f"{request.param}_url"))
    backend = {"postgresql": "postgresql", "mariadb": "mysql"}[request.param]
    name = f"{ODD} {uuid4().hex[:8]}"
    url = admin.set(drivername=backend, database=name).render_as_string(hide_password=False)
    yield url
    alone = database(url, disposable=True)
    alone.drop()


def test_create_drop_and_recreate(odd_url: str) -> None:
    alone = database(odd_url, disposable=True)
    assert not alone.exists()
    alone.create()
    assert alone.exists()
    with alone.begin() as connection:
        connection.execute(text("create table t (n int)"))
    alone.create()  # what exists is left as it is
    with alone.session() as session:
        assert session.scalar(text("select count(*) from t")) == 0
    alone.recreate()
    assert alone.exists()
    with alone.session() as session:
        session.execute(text("create table t (n int)"))  # it was empty again
    alone.drop()
    assert not alone.exists()
    alone.drop()  # what does not exist is no error
    alone.close()


def test_recreate_makes_what_did_not_exist(odd_url: str) -> None:
    alone = database(odd_url, disposable=True)
    alone.recreate()
    assert alone.exists()
    alone.drop()


@pytest.mark.parametrize("what", ["drop", "recreate"])
def test_what_is_not_disposable_is_not_destroyed(any_database: str, what: str) -> None:
    with database(any_database) as alone:
        with alone.begin() as connection:
            connection.execute(text("create table t (n int)"))
        with pytest.raises(NotDisposable, match=r"set databases\.main\.disposable = true; the profile 'test' does"):
            getattr(alone, what)()
        with alone.session(role="reader") as session:
            assert session.scalar(text("select count(*) from t")) == 0


def test_the_refusal_shows_no_secrets() -> None:
    with pytest.raises(NotDisposable) as caught:
        database("postgresql://me:tell-nobody@127.0.0.1:1/shop").drop()
    assert "tell-nobody" not in str(caught.value)
    assert isinstance(caught.value, PermissionError)


def test_another_login_may_create_and_drop(postgresql_url: str) -> None:
    name = servers.unique_name()
    url = make_url(postgresql_url).set(drivername="postgresql", database=name, username="nobody_such")
    alone = database(str(url), admin_url=postgresql_url, disposable=True)
    alone.create()
    try:
        assert alone.exists()
    finally:
        alone.drop()
    assert not alone.exists()


def test_drop_ends_connections_that_others_have_open(postgresql_url: str) -> None:
    url = make_url(postgresql_url).set(drivername="postgresql", database=servers.unique_name())
    alone, other = database(str(url), disposable=True), database(str(url))
    alone.create()
    with other.connect() as connection:
        connection.execute(text("select 1"))
        alone.drop()
        assert not alone.exists()
        with contextlib.suppress(OperationalError):
            connection.rollback()
        connection.invalidate()
    other.close()


def test_drop_takes_the_files_beside_the_database_along(tmp_path: Path) -> None:
    alone = database(f"sqlite:///{tmp_path / 'x.db'}", disposable=True)
    alone.create()
    with alone.begin() as connection:
        connection.execute(text("create table t (n int)"))
        alone_reader = alone.reader_engine.connect()
        alone_reader.close()
    alone.drop()
    assert list(tmp_path.iterdir()) == []


# --- models and metadata


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """
    A package of models whose modules refer to each other; its name.
    """
    name = f"models_{uuid4().hex}"
    root = tmp_path / name
    (root / "deep").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "base.py": "from sqlalchemy.orm import DeclarativeBase\nclass Base(DeclarativeBase): pass\n",
        "author.py": _model(name, "Author", "author", "Mapped[list['Book']] = relationship()"),
        "deep/__init__.py": "",
        "deep/book.py": _model(name, "Book", "book", "Mapped[int] = mapped_column(ForeignKey('author.id'))"),
    }
    for path, content in files.items():
        (root / path).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[module]


def _model(package: str, name: str, table: str, other: str) -> str:
    circle = f"{package}.deep.book" if name == "Author" else f"{package}.author"
    return (
        "from typing import TYPE_CHECKING\n"
        "from sqlalchemy import ForeignKey\n"
        "from sqlalchemy.orm import Mapped, mapped_column, relationship\n"
        f"from {package}.base import Base\n"
        f"if TYPE_CHECKING:\n    import {circle}\n"
        f"class {name}(Base):\n"
        f"    __tablename__ = '{table}'\n"
        "    id: Mapped[int] = mapped_column(primary_key=True)\n"
        f"    other: {other}\n"
    )


def test_every_module_below_a_package_is_imported(package: str) -> None:
    with database("sqlite://", models=[package], metadata=f"{package}.base:Base") as alone:
        assert f"{package}.author" not in sys.modules
        assert set(alone.metadata.tables) == {"author", "book"}


def test_models_are_there_before_the_first_session(package: str) -> None:
    with database("sqlite://", models=[package]) as alone, alone.session() as session:
        session.execute(text("select 1"))
        assert f"{package}.deep.book" in sys.modules


def test_metadata_may_be_named_itself(package: str) -> None:
    with database("sqlite://", models=[package], metadata=f"{package}.base:Base.metadata") as alone:
        assert isinstance(alone.metadata, MetaData)
        assert "author" in alone.metadata.tables


@pytest.mark.parametrize("place", ["broken.py", "deep/broken.py", "broken/__init__.py"])
def test_a_module_that_cannot_be_imported_is_named(package: str, tmp_path: Path, place: str) -> None:
    path = tmp_path / package / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("import no_such_module_anywhere\n")
    module = f"{package}.{place.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}"
    with database("sqlite://", models=[package], metadata=f"{package}.base:Base") as alone:
        for _ in range(2):  # the second time too
            with pytest.raises(SettingsError, match="cannot be imported: ModuleNotFoundError") as caught:
                _ = alone.metadata
            assert f"databases.main.models: the module '{module}'" in str(caught.value)
            assert isinstance(caught.value.__cause__, ModuleNotFoundError)
            assert caught.value.path == "databases.main.models"


def test_a_package_that_does_not_exist_is_named() -> None:
    with database("sqlite://", models=["no_such_package"]) as alone:
        with pytest.raises(SettingsError, match="the module 'no_such_package' cannot be imported"):
            _ = alone.engine


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_package:Base", "the module 'no_such_package' cannot be imported"),
        ("stillroom:Bse", "'stillroom' has no attribute 'Bse'"),
        ("stillroom:Databases", "'stillroom:Databases' is a type; it must be a MetaData or a declarative base"),
    ],
)
def test_wrong_metadata_is_named(target: str, message: str) -> None:
    with database("sqlite://", metadata=target) as alone, pytest.raises(SettingsError, match=message):
        _ = alone.metadata
