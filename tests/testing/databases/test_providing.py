"""
Test databases on each backend: made from templates, used, kept, remade, dropped.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url, text

from stillroom import Databases
from stillroom.migrations import MigrationsFailed
from stillroom.testing.errors import TestingError
from stillroom.testing.options import TestOptions
from stillroom.testing.provisioning import TestDatabase, collect_garbage, provide
from tests.migrations import shop
from tests.testing.databases.support import Application, execute, exists, names_on, rows, seed, seeded

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@pytest.fixture
def application(place: str, tmp_path: Path) -> Application:
    """
    An application on each backend in turn.
    """
    return Application(tmp_path, place)


@pytest.fixture
def in_file(sqlite_place: str, tmp_path: Path) -> Application:
    """
    An application on SQLite, where what is tested is the same everywhere.
    """
    return Application(tmp_path, sqlite_place)


def test_a_test_database_is_migrated_seeded_and_gone_afterwards(application: Application) -> None:
    with application.databases() as dbs:
        with provide(dbs, seeded(worker="gw3")) as made:
            url = made["main"].url
            assert "gw3_1" in str(url.database)
            assert rows(url) == ["seed"]
            assert not exists(dbs.main.settings.url)
            execute(url, "delete from book")
        assert not exists(url)
        with provide(dbs, seeded()) as made:
            assert rows(made["main"].url) == ["seed"]
    assert application.runs == 1  # the second run found the template


def test_an_edited_revision_makes_another_template_and_going_back_finds_the_old_one(in_file: Application) -> None:
    def title() -> list[Any]:
        with in_file.databases() as dbs, provide(dbs, seeded()) as made:
            return rows(made["main"].url)

    assert title() == ["seed"]
    in_file.revision("""op.execute("insert into book (id, title) values (9, 'edited')")""")
    assert title() == ["seed", "edited"]
    in_file.revision()
    assert title() == ["seed"]
    assert in_file.runs == 2


def test_two_runs_at_once_have_databases_of_their_own(application: Application) -> None:
    with application.databases() as dbs, provide(dbs, seeded()) as first:
        with provide(dbs, seeded()) as second:
            execute(second["main"].url, "delete from book")
            assert rows(first["main"].url) == ["seed"]
            assert first["main"].url != second["main"].url
        assert rows(first["main"].url) == ["seed"]
    assert application.runs == 1


def test_a_database_of_somebody_else_is_left_alone(application: Application) -> None:
    with application.databases() as dbs:
        with provide(dbs, seeded()) as made:
            taken = made["main"].url
        settings = dbs.settings.replace("main", url=taken)
        with Databases(settings) as others:
            others.main.create()
        execute(taken, "create table precious (id integer)")
        for _ in range(2):
            with provide(dbs, seeded()) as made:
                assert made["main"].url != taken
        collect_garbage(dbs, seeded())
    assert rows(taken, "select count(*) from precious") == [0]


def test_a_kept_database_is_taken_as_it_is_as_long_as_it_fits(application: Application) -> None:
    with application.databases() as dbs:
        with provide(dbs, seeded(keep=True)) as made:
            url = made["main"].url
            execute(url, "insert into book (id, title) values (2, 'mine')")
        assert exists(url)
        with provide(dbs, seeded(keep=True)) as made:
            assert made["main"].url == url
            assert rows(url) == ["seed", "mine"]
        application.revision("# another version")
        with provide(dbs, seeded()) as made:  # which it does not fit any more
            assert made["main"].url == url
            assert rows(url) == ["seed"]
        assert not exists(url)


def test_fresh_makes_a_template_once_for_a_run(in_file: Application) -> None:
    with in_file.databases() as dbs:
        with provide(dbs, seeded(keep=True)) as made:
            execute(made["main"].url, "insert into book (id, title) values (2, 'mine')")
        for worker in ("", "gw1"):
            with provide(dbs, seeded(worker=worker, fresh=True, run="r1")) as made:
                assert rows(made["main"].url) == ["seed"]
        assert in_file.runs == 2
        with provide(dbs, seeded(fresh=True)):
            pass
        assert in_file.runs == 3
        with provide(dbs, seeded()):
            pass
    assert in_file.runs == 3


def test_a_clone_is_a_database_of_its_own(application: Application) -> None:
    with application.databases() as dbs, provide(dbs, seeded()) as made:
        main = made["main"]
        execute(main.url, "delete from book")
        url = main.clone("test_a[1]")
        assert rows(url) == ["seed"]
        execute(url, "delete from book")
        assert main.clone("test_a[1]") == url
        assert rows(url) == ["seed"]
        assert rows(main.url) == []
        main.drop_clone(url)
        assert not exists(url)
        main.drop_clone(url)  # is no error
        assert rows(main.url) == []


def test_a_clone_does_not_take_the_place_of_another_run(in_file: Application) -> None:
    with in_file.databases() as dbs, provide(dbs, seeded()) as made, provide(dbs, seeded(worker="1")) as other:
        execute(other["main"].url, "insert into book (id, title) values (2, 'mine')")
        with pytest.raises(TestingError, match="give the clone another label than '1'"):
            made["main"].clone("1")
        assert rows(other["main"].url) == ["seed", "mine"]


def test_only_a_clone_can_be_dropped_as_one(in_file: Application) -> None:
    with in_file.databases() as dbs, provide(dbs, seeded()) as made:
        with pytest.raises(TestingError, match="is not a clone"):
            made["main"].drop_clone(made["main"].url)
        assert rows(made["main"].url) == ["seed"]


def test_a_damaged_database_is_made_anew_even_if_its_template_is_gone(application: Application) -> None:
    with application.databases() as dbs, provide(dbs, seeded()) as made:
        url = made["main"].url
        execute(url, "drop table book")
        made["main"].remake()
        assert rows(url) == ["seed"]
        execute(url, "drop table book")
        made["main"].template.server.drop_template(made["main"].template.name)
        made["main"].remake()
        assert made["main"].url == url
        assert rows(url) == ["seed"]
    assert application.runs == 2


def test_a_connection_that_was_left_open_does_not_stop_the_end(application: Application) -> None:
    with application.databases() as dbs:
        with provide(dbs, seeded()) as made:
            leaked = Databases(dbs.settings.replace("main", url=made["main"].url))
            connection = leaked.main.connect()
            connection.execute(text("insert into book (id, title) values (2, 'open')"))
            url = made["main"].url
        assert not exists(url)
    connection.invalidate()
    connection.close()
    leaked.close()


def test_a_revision_that_fails_leaves_nothing(application: Application) -> None:
    application.revision("raise RuntimeError('oh')")
    with application.databases() as dbs:
        with pytest.raises(MigrationsFailed, match="oh"):
            with provide(dbs, seeded()):
                pass
        left = [name for name in names_on(dbs.main.settings.url) if not name.endswith("-stillroom")]
        assert left == []
        application.revision()
        with provide(dbs, seeded()) as made:
            assert rows(made["main"].url) == ["seed"]


def test_a_seed_that_fails_leaves_no_template(in_file: Application) -> None:
    def bad(session: Session) -> None:
        seed(session)
        session.flush()
        raise RuntimeError("oh")

    with in_file.databases() as dbs:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="oh"):
                with provide(dbs, TestOptions(seeds={"main": [bad]})):
                    pass
    assert in_file.runs == 2


def test_garbage_is_what_no_run_uses_any_more(application: Application) -> None:
    with application.databases() as dbs:
        with provide(dbs, seeded(keep=True)) as made:
            stale, old = made["main"].url, made["main"].template.name
        application.revision("# another version")
        with provide(dbs, seeded(worker="gw5", keep=True)) as made:
            kept, template = made["main"].url, made["main"].template.name
            forgotten = made["main"].clone("forgotten")
        application.revision("# a third one")
        with provide(dbs, seeded(worker="gw6")) as made:
            used, needed = made["main"].url, made["main"].template.name
            application.revision("# another version")
            removed = collect_garbage(dbs, seeded())
            assert sorted(removed) == sorted([*map(name_of, (stale, forgotten)), old])
            assert [exists(url) for url in (stale, forgotten, kept, used)] == [False, False, True, True]
            assert collect_garbage(dbs, seeded()) == []
        assert collect_garbage(dbs, seeded()) == [needed]
        with provide(dbs, seeded(worker="gw5")) as made:
            assert made["main"].template.name == template
    assert application.runs == 3


def name_of(url: Any) -> str:
    return str(url.database).rpartition("/")[2].removesuffix(".db")


def test_odd_names_stand_for_themselves(place: str, tmp_path: Path) -> None:
    url = make_url(place)
    odd = f"""{url.database} :so'"%s\\`%41[x]"""  # short, so that no name is cut
    application = Application(tmp_path, url.set(database=odd).render_as_string(hide_password=False))
    with application.databases() as dbs:
        kept: set[Any] = set()
        for _ in range(2):
            with provide(dbs, seeded(keep=True)) as made:
                made["main"].remake()
                kept.add(made["main"].url)
                assert rows(made["main"].url) == ["seed"]
                assert rows(made["main"].clone("it's")) == ["seed"]
        assert application.runs == 1
        application.revision("# another version")
        assert len(collect_garbage(dbs, seeded())) == 3
        assert not any(exists(url) for url in kept)


def test_a_copy_that_is_being_made_belongs_to_its_run(postgresql_place: str, tmp_path: Path) -> None:
    application = Application(tmp_path, postgresql_place)
    asked = "select shobj_description(oid, 'pg_database') from pg_database where datname = current_database()"
    with application.databases() as dbs:
        with provide(dbs, seeded()) as made:
            making = f"{make_url(postgresql_place).database}_making"
            (note,) = rows(made["main"].url, asked)
            with Databases(dbs.settings.replace("main", url=made["main"].url.set(database=making))) as half:
                half.main.create()
                with half.main.begin() as connection:
                    connection.exec_driver_sql(f"comment on database {making} is '{note}'")
            assert collect_garbage(dbs, seeded()) == []
        assert collect_garbage(dbs, seeded()) == [making]


def test_only_the_sessions_of_the_database_itself_are_ended_with_it(mariadb_place: str, tmp_path: Path) -> None:
    url = make_url(mariadb_place)
    place = url.set(database=f"{url.database}_TEST").render_as_string(hide_password=False)
    with Application(tmp_path, place).databases() as dbs, provide(dbs, seeded()) as made:
        lower = made["main"].url.set(database=str(made["main"].url.database).lower())
        with Databases(dbs.settings.replace("main", url=lower)) as others:
            others.main.create()
            with others.main.connect() as connection:
                made["main"].remake()
                assert connection.scalar(text("select database()")) == lower.database


def test_a_name_that_is_too_long_is_cut_and_still_unique(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    application = Application(tmp_path, place.replace("test", "test_" + "x" * 25, 1) if "sqlite" in place else place)
    with application.databases() as dbs, provide(dbs, seeded(worker="gw0" + "y" * 40)) as made:
        clones = [made["main"].clone(f"{'z' * 60}{number}") for number in range(2)]
        assert [rows(url) for url in (made["main"].url, *clones)] == [["seed"]] * 3
        for clone in clones:
            made["main"].drop_clone(clone)


def test_tables_come_from_the_models_where_there_are_no_revisions(place: str, tmp_path: Path) -> None:
    settings = {"databases": {"main": {"url": place, "metadata": "tests.testing.databases.models:models"}}}
    with Databases(settings) as dbs, provide(dbs, TestOptions()) as made:
        assert rows(made["main"].url, "select count(*) from thing") == [0]


def test_schemas_of_models_are_made(postgresql_place: str) -> None:
    main = {"url": postgresql_place, "metadata": "tests.testing.databases.models:in_schema"}
    with Databases({"databases": {"main": main}}) as dbs, provide(dbs, TestOptions()) as made:
        assert rows(made["main"].url, "select count(*) from stock.thing") == [0]


def test_where_the_tables_come_from_can_be_chosen(in_file: Application) -> None:
    in_file.settings["databases"]["main"]["metadata"] = "tests.testing.databases.models:models"
    tables = "select name from sqlite_master where type = 'table' and name not like 'sqlite%'"
    with in_file.databases() as dbs:
        with provide(dbs, TestOptions(schema={"main": "create_all"})) as made:
            assert rows(made["main"].url, tables) == ["thing"]
        with provide(dbs, TestOptions(schema={"main": "none"})) as made:
            assert rows(made["main"].url, tables) == []
    assert in_file.runs == 0


def test_a_database_in_memory_is_a_copy_too(tmp_path: Path) -> None:
    application = Application(tmp_path, "sqlite://")
    with application.databases() as dbs:
        for _ in range(2):
            with provide(dbs, seeded()) as made:
                url = made["main"].url
                assert rows(url) == ["seed"]
                execute(url, "delete from book")
                assert rows(made["main"].clone("x")) == ["seed"]
                made["main"].remake()
                assert made["main"].url == url
                assert rows(url) == ["seed"]
    assert application.runs == 1


def test_several_databases_are_made_those_first_that_others_depend_on(sqlite_place: str, tmp_path: Path) -> None:
    urls = {name: sqlite_place.replace("shop", name) for name in ("b", "a")}
    settings = shop.settings(tmp_path, urls) | {"default": "a"}
    settings["databases"]["b"]["depends_on"] = ["a"]
    order: list[str] = []

    def noting(name: str, _: Session) -> None:
        order.append(name)

    seeds = {name: [partial(noting, name)] for name in urls}
    for name in urls:
        shop.tables(tmp_path / "migrations" / name, "x")
    for _ in range(2):
        with Databases(settings) as dbs, provide(dbs, TestOptions(seeds=seeds)) as made:
            assert list(made) == ["b", "a"]
    assert order == ["a", "b"]
    shop.tables(tmp_path / "migrations" / "a", "x", "y")
    with Databases(settings) as dbs, provide(dbs, TestOptions(seeds=seeds)):
        assert order == ["a", "b", "a", "b"]


def test_names_of_one_database_share_one_test_database(place: str, tmp_path: Path) -> None:
    application = Application(tmp_path, place)
    log = {"url": place, "role": "logger", "metadata": "tests.testing.databases.models:models"}
    application.settings["databases"]["log"] = log
    application.settings["default"] = "main"
    with application.databases() as dbs, provide(dbs, seeded()) as made:
        assert made["main"].url == made["log"].url
        assert rows(made["log"].url, "select count(*) from thing") == [0]
        assert rows(made["log"].url) == ["seed"]


def test_it_works_over_an_asynchronous_driver_alone_inside_a_running_loop(
    postgresql_place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = Application(tmp_path, postgresql_place.replace("postgresql", "postgresql+asyncpg", 1))

    async def main() -> None:
        with application.databases() as dbs, provide(dbs, seeded()) as made:
            with provide(dbs, seeded()) as others:
                assert made["main"].url != others["main"].url
            made["main"].remake()
            other = Databases(dbs.settings.replace("main", url=made["main"].url))
            async with other, other.async_unit_of_work() as unit:
                assert await unit.main.scalar(text("select title from book")) == "seed"

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "psycopg", None)
        patch.setitem(sys.modules, "psycopg2", None)
        asyncio.run(main())
    assert names_on(postgresql_place) == [made_template(postgresql_place)]


def made_template(url: str) -> str:
    (name,) = [each for each in names_on(url) if each.startswith("tpl_")]
    return name


def test_nobody_can_connect_to_a_template(postgresql_place: str, tmp_path: Path) -> None:
    application = Application(tmp_path, postgresql_place)
    with application.databases() as dbs, provide(dbs, seeded()) as made:
        with pytest.raises(Exception, match="not currently accepting connections"):
            rows(made["main"].url.set(database=made_template(postgresql_place)))


def test_prepared_transactions_do_not_stop_the_end(postgresql_place: str, tmp_path: Path) -> None:
    application = Application(tmp_path, postgresql_place)
    with application.databases() as dbs:
        with provide(dbs, seeded()) as made:
            with Databases(dbs.settings.replace("main", url=made["main"].url)) as other, other.main.connect() as left:
                left.execute(text("insert into book (id, title) values (2, 'open')"))
                left.execute(text("prepare transaction 'x''y'"))
        assert not exists(made["main"].url)


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"])
def test_a_name_that_was_lost_to_another_run_is_left_to_it(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue(f"{backend}_place")
    told: list[str] = []
    application = Application(tmp_path, url)
    with application.databases() as dbs, ExitStack() as stack:
        with provide(dbs, seeded(notice=told.append)) as first:
            lose_connection(first["main"])
            second = stack.enter_context(provide(dbs, seeded()))
            assert second["main"].url == first["main"].url
            with pytest.raises(TestingError, match="another run has it now"):
                first["main"].remake()
        assert "another run took" in told[-1]
        assert rows(second["main"].url) == ["seed"]


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"])
def test_a_lost_connection_does_not_stop_the_end(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    application = Application(tmp_path, request.getfixturevalue(f"{backend}_place"))
    with application.databases() as dbs:
        with provide(dbs, seeded()) as made:
            lose_connection(made["main"])
        assert not exists(made["main"].url)


def lose_connection(database: TestDatabase) -> None:
    """
    End, on the server, the connection that keeps the name of a test database.
    """
    postgresql = database.url.get_backend_name() == "postgresql"
    line: Any = database.template.server
    number = line._row(f"select {'pg_backend_pid' if postgresql else 'connection_id'}()")[0]
    ending = f"select pg_terminate_backend({number}, 5000)" if postgresql else f"kill connection {number}"
    execute(database.url, ending)


def test_a_kept_file_that_somebody_removed_is_made_anew(in_file: Application) -> None:
    for _ in range(2):
        with in_file.databases() as dbs, provide(dbs, seeded(keep=True)) as made:
            assert rows(made["main"].url) == ["seed"]
        Path(str(made["main"].url.database)).unlink()


def test_a_file_can_be_named_as_a_uri(tmp_path: Path) -> None:
    application = Application(tmp_path, f"sqlite:///file:{tmp_path}/x_test.db?uri=true")
    with application.databases() as dbs, provide(dbs, seeded()) as made:
        assert rows(made["main"].url) == ["seed"]
        assert (tmp_path / "x_test_1.db").exists()


def test_a_relative_path_stays_where_it_was_when_the_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Application(tmp_path, "sqlite:///x_test.db").databases() as dbs, provide(dbs, seeded()) as made:
        clone = made["main"].clone("x")
        monkeypatch.chdir("/")
        made["main"].drop_clone(clone)
        assert not exists(clone)
        assert Path(str(made["main"].url.database)) == tmp_path / "x_test_1.db"


def test_a_pooler_alone_is_refused(tmp_path: Path) -> None:
    application = Application(tmp_path, "postgresql://127.0.0.1:1/x_test", pooler=True)
    with application.databases() as dbs, pytest.raises(TestingError, match="migration_url"):
        with provide(dbs, TestOptions()):
            pass


def test_the_migration_url_leads_past_a_pooler(postgresql_place: str, tmp_path: Path) -> None:
    direct = make_url(postgresql_place)
    elsewhere = direct.set(port=1).render_as_string(hide_password=False)
    application = Application(tmp_path, elsewhere, pooler=True, migration_url=postgresql_place)
    with application.databases() as dbs, provide(dbs, seeded()) as made:
        assert made["main"].url.port == 1
        assert rows(direct.set(database=made["main"].url.database)) == ["seed"]
