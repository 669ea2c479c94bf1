"""Upgrades and downgrades: what runs, what stays when a revision fails, and what is left as it was."""

from __future__ import annotations

import asyncio
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import inspect, text

from stillroom import Databases, SettingsError
from stillroom.migrations import (
    MigrationError,
    MigrationsFailed,
    NoMigrations,
    Options,
    RevisionFailed,
    UnknownRevision,
    downgrade,
    init,
    stamp,
    status,
    upgrade,
    wait,
)
from tests.migrations import shop

if TYPE_CHECKING:
    from pathlib import Path

BROKEN = 'op.execute("alter table nowhere add column x int")'


def names(dbs: Databases, name: str = "main") -> set[str]:
    with dbs[name].connect() as connection:
        return set(inspect(connection).get_table_names()) - {"alembic_version", "stillroom_migrations"}


def test_upgrade_runs_what_is_pending_and_downgrade_undoes_it(any_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a", "b")
    with shop.databases(tmp_path, any_database) as dbs:
        (first,) = upgrade(dbs)
        assert (first.database, first.state, first.revisions) == ("main", "done", ("a", "b"))
        assert names(dbs) == {"a", "b"}
        (again,) = upgrade(dbs)
        assert (again.state, again.revisions) == ("nothing to do", ())
        assert downgrade(dbs, "-1")[0].revisions == ("b",)
        assert names(dbs) == {"a"}
        assert downgrade(dbs, "base")[0].revisions == ("a",)
        assert upgrade(dbs, revision="a")[0].revisions == ("a",)


def test_a_database_in_memory_is_migrated(tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    with shop.databases(tmp_path, "sqlite://") as dbs:
        upgrade(dbs)
        assert names(dbs) == {"a"}


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_nothing_stays_of_a_revision_that_failed(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    directory = tmp_path / "migrations/main"
    shop.tables(directory, "a")
    bad = shop.write(directory, "b", f'op.execute("create table b (id int)")\n{BROKEN}', down="a")
    with shop.databases(tmp_path, request.getfixturevalue(f"{backend}_database")) as dbs:
        with pytest.raises(
            MigrationsFailed, match=r"'b' of the database 'main' failed at .*nowhere.* Nothing"
        ) as caught:
            upgrade(dbs)
        assert caught.value.outcomes[0].revisions == ("a",)
        assert names(dbs) == {"a"}
        bad.unlink()
        shop.tables(directory, "b", down="a")
        assert upgrade(dbs)[0].revisions == ("b",)


DEFERRED = """
op.execute("create table p (id int primary key)")
op.execute("create table c (p int references p deferrable initially deferred)")
op.execute("insert into c values (1)")
"""


def test_a_revision_whose_commit_fails_did_not_run(postgresql_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    shop.write(tmp_path / "migrations/main", "b", DEFERRED, down="a")
    shop.tables(tmp_path / "migrations/main", "c", down="b")
    with shop.databases(tmp_path, postgresql_database) as dbs:
        with pytest.raises(
            MigrationsFailed, match=r"'b' of the database 'main' failed at 'COMMIT': ForeignKey.* Nothing"
        ) as caught:
            upgrade(dbs)
        assert caught.value.outcomes[0].revisions == ("a",)
        assert status(dbs)[0].current == ("a",)
        assert names(dbs) == {"a"}


def test_an_error_shows_no_password(postgresql_database: str, tmp_path: Path) -> None:
    shop.write(tmp_path / "migrations/main", "a", """op.execute("alter role nobody_there password 'tiger'")""")
    with shop.databases(tmp_path, postgresql_database) as dbs:
        with pytest.raises(MigrationsFailed, match="alter role nobody_there password") as caught:
            upgrade(dbs)
        assert "tiger" not in str(caught.value)


def test_mariadb_tells_what_stays_of_a_revision_that_failed(mariadb_database: str, tmp_path: Path) -> None:
    statements = [
        "create table b (id int)",
        "insert into b values (1)",
        "/* as well */ create table c (id int)",
        "insert into c values (1)",
    ]
    body = "\n".join(f'op.execute("{each}")' for each in statements)
    shop.write(tmp_path / "migrations/main", "b", f'{body}\nop.execute("insert into nowhere values (1)")')
    with shop.databases(tmp_path, mariadb_database) as dbs:
        with pytest.raises(MigrationsFailed, match=r"3 statement\(s\) .* stay, .*: create table b") as caught:
            upgrade(dbs)
        cause = caught.value.__cause__
        assert isinstance(cause, RevisionFailed)
        assert (cause.revision, cause.kept) == ("b", tuple(statements[:3]))
        with dbs.main.connect() as connection:
            assert connection.execute(text("select count(*) from b")).scalar() == 1
            assert connection.execute(text("select count(*) from c")).scalar() == 0


def test_the_first_failure_stops_and_a_rerun_resumes(postgresql_database: str, tmp_path: Path) -> None:
    given = shop.settings(tmp_path, {"last": "sqlite://", "second": postgresql_database, "first": "sqlite://"})
    given["databases"]["last"]["depends_on"] = ["second"]
    given["databases"]["second"]["depends_on"] = ["first"]
    given["default"] = "first"
    for name in ("first", "second", "last"):
        shop.tables(tmp_path / "migrations" / name, "a")
    bad = shop.write(tmp_path / "migrations/second", "a", f'op.execute("create table a (id int)")\n{BROKEN}')
    with Databases(given) as dbs:
        with pytest.raises(MigrationsFailed, match="first done, second failed, last not started") as caught:
            upgrade(dbs)
        assert [each.state for each in caught.value.outcomes] == ["done", "failed", "not started"]
        assert (names(dbs, "first"), names(dbs, "second"), names(dbs, "last")) == ({"a"}, set(), set())
        bad.unlink()
        shop.tables(tmp_path / "migrations/second", "a")
        assert [each.state for each in upgrade(dbs)] == ["nothing to do", "done", "done"]


def test_a_revision_that_met_a_lock_is_run_again_as_a_whole(postgresql_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    with shop.databases(tmp_path, postgresql_database) as dbs:
        upgrade(dbs)
        body = 'op.execute("create table b (id int)")\nop.add_column("a", sa.Column("x", sa.Integer))'
        shop.write(tmp_path / "migrations/main", "b", body, down="a")
        with dbs.main.connect() as reader:
            reader.execute(text("select * from a"))
            notices: list[str] = []

            def notice(what: str) -> None:
                notices.append(what)
                if len(notices) == 2:
                    reader.rollback()

            assert upgrade(dbs, options=Options(notice=notice))[0].revisions == ("b",)
        assert len(notices) >= 2
        assert all("trying again" in each for each in notices)


def test_a_lock_that_stays_ends_the_attempts(postgresql_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    with shop.databases(tmp_path, postgresql_database) as dbs:
        upgrade(dbs)
        shop.write(tmp_path / "migrations/main", "b", 'op.add_column("a", sa.Column("x", sa.Integer))', down="a")
        with dbs.main.connect() as reader:
            reader.execute(text("select * from a"))
            with pytest.raises(MigrationsFailed, match="LockNotAvailable"):
                upgrade(dbs, options=Options(lock_timeout=0.01, retry_for=0))


def test_a_url_and_a_directory_may_hold_any_sign(postgresql_database: str, tmp_path: Path) -> None:
    directory = tmp_path / "100%d of it"
    shop.tables(directory / "migrations/main", "a")
    url = postgresql_database.replace("postgres@", "postgres:p%25d%40x%3Ay@", 1)
    assert url != postgresql_database
    with shop.databases(directory, url) as dbs:
        assert upgrade(dbs)[0].revisions == ("a",)


def test_threads_migrate_databases_side_by_side(tmp_path: Path) -> None:
    urls = {f"db{number}": f"sqlite:///{tmp_path / f'{number}.db'}" for number in range(4)}
    for name in urls:
        shop.tables(tmp_path / "migrations" / name, f"{name}_a", f"{name}_b")
    with Databases(shop.settings(tmp_path, urls) | {"default": "db0"}) as dbs:
        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(lambda name: upgrade(dbs, name)[0], urls))
        assert [each.revisions for each in outcomes] == [(f"{name}_a", f"{name}_b") for name in urls]
        assert all(names(dbs, name) == {f"{name}_a", f"{name}_b"} for name in urls)


def test_processes_migrate_several_databases_at_a_time_in_order(tmp_path: Path) -> None:
    urls = {f"db{number}": f"sqlite:///{tmp_path / f'{number}.db'}" for number in range(4)}
    given = shop.settings(tmp_path, urls) | {"default": "db0"}
    given["databases"]["db3"]["depends_on"] = ["db0"]
    for name in ("db1", "db2", "db3"):
        shop.tables(tmp_path / "migrations" / name, "a")
    bad = shop.write(tmp_path / "migrations/db0", "a", BROKEN)
    with Databases(given) as dbs:
        with pytest.raises(MigrationsFailed, match=r"revision 'a' of the database 'db0' .* db3 not started") as caught:
            upgrade(dbs, parallel=2)
        states = {each.database: each.state for each in caught.value.outcomes}
        assert (states["db0"], states["db3"]) == ("failed", "not started")
        bad.unlink()
        shop.tables(tmp_path / "migrations/db0", "a")
        seen: list[tuple[str, int, int]] = []
        done = upgrade(dbs, parallel=2, options=Options(progress=lambda *told: seen.append(told)))
        assert all(each.state in ("done", "nothing to do") for each in done)
        assert seen[-1] == ("databases", 4, 4)
        assert all(names(dbs, name) == {"a"} for name in urls)


def test_loggers_are_left_alone(tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    logger, root = logging.getLogger("an.application"), logging.getLogger()
    before = (logger.disabled, root.level, list(root.handlers))
    with shop.databases(tmp_path, "sqlite://") as dbs:
        upgrade(dbs)
    assert (logger.disabled, root.level, list(root.handlers)) == before


def test_it_works_inside_a_running_event_loop_with_an_asynchronous_driver_alone(
    postgresql_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    concurrently = """
    with op.get_context().autocommit_block():
        op.create_index("a_id", "a", ["id"], postgresql_concurrently=True)
    """
    shop.write(tmp_path / "migrations/main", "b", concurrently, down="a")

    async def main() -> tuple[str, ...]:
        with shop.databases(tmp_path, postgresql_database.replace("postgresql", "postgresql+asyncpg", 1)) as dbs:
            return upgrade(dbs)[0].revisions

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "psycopg", None)
        patch.setitem(sys.modules, "psycopg2", None)
        assert asyncio.run(main()) == ("a", "b")


def test_the_migration_url_leads_past_a_pooler(postgresql_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    pooler = postgresql_database.replace("127.0.0.1:5432", "127.0.0.1:1")
    assert pooler != postgresql_database
    with shop.databases(tmp_path, pooler, pooler=True, migration_url=postgresql_database) as dbs:
        assert upgrade(dbs)[0].revisions == ("a",)


def test_a_pooler_without_a_migration_url_is_refused(tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    with shop.databases(tmp_path, "postgresql://127.0.0.1:1/x", pooler=True) as dbs:
        with pytest.raises(MigrationsFailed, match=r"databases\.main\.migration_url") as caught:
            upgrade(dbs)
        assert isinstance(caught.value.__cause__, SettingsError)


ALBUMS = """
op.execute("create table artist (id integer primary key, name text)")
op.execute("create table album (id integer primary key, artist integer references artist on delete cascade)")
op.execute("insert into artist values (1, 'x')")
op.execute("insert into album values (1, 1)")
"""


def test_a_table_of_sqlite_is_made_anew_without_harm_to_what_refers_to_it(sqlite_database: str, tmp_path: Path) -> None:
    shop.write(tmp_path / "migrations/main", "a", ALBUMS)
    batch = 'with op.batch_alter_table("artist") as batch:\n    batch.alter_column("name", nullable=False)'
    shop.write(tmp_path / "migrations/main", "b", batch, down="a")
    with shop.databases(tmp_path, sqlite_database) as dbs:
        upgrade(dbs)
        with dbs.main.connect() as connection:
            assert connection.execute(text("select count(*) from album")).scalar() == 1
            assert connection.execute(text("pragma foreign_keys")).scalar() == 1


def test_a_revision_that_breaks_references_is_undone_on_sqlite(sqlite_database: str, tmp_path: Path) -> None:
    shop.write(tmp_path / "migrations/main", "a", ALBUMS)
    shop.write(tmp_path / "migrations/main", "b", 'op.execute("delete from artist")', down="a")
    with shop.databases(tmp_path, sqlite_database) as dbs:
        with pytest.raises(MigrationsFailed, match="row 1 of 'album' to 'artist'"):
            upgrade(dbs)
        assert status(dbs)[0].current == ("a",)
        with dbs.main.connect() as connection:
            assert connection.execute(text("select count(*) from artist")).scalar() == 1


def test_init_makes_the_directories_once(tmp_path: Path) -> None:
    with shop.databases(tmp_path, "sqlite://") as dbs:
        with pytest.raises(NoMigrations, match="stillroom init"):
            status(dbs)
        assert init(dbs) == [tmp_path / "migrations/main/versions"]
        assert init(dbs) == []
        assert upgrade(dbs)[0].state == "nothing to do"


def test_databases_without_migrations_say_how_to_have_them() -> None:
    with Databases({"databases": {"main": {"url": "sqlite://"}}}) as dbs:
        for name in (None, "main"):
            with pytest.raises(NoMigrations, match=r"databases\.main\.migrations = "):
                upgrade(dbs, name)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("baselnie", "'log' has no revision 'baselnie' in .*; did you mean 'baseline'"),
        ("baseline", "'main' has no revision 'baseline' in .*, unlike 'log': name the database"),
        ("zzzz", "'(log|main)' has no revision 'zzzz' in .*; the newest are '(tables_two', '|first)"),
        ("tables", "2 revisions of the database 'log' begin with 'tables': tables_two, tables_one"),
        ("nobranch@head", "'(log|main)' has no revision 'nobranch@head'"),
        ("zzzz-1", "'(log|main)' has no revision 'zzzz'"),
    ],
)
def test_a_revision_that_is_not_there_is_refused_before_any_database_is_touched(
    target: str, told: str, tmp_path: Path
) -> None:
    urls = {name: f"sqlite:///{tmp_path / name}.db" for name in ("log", "main")}
    shop.tables(tmp_path / "migrations/log", "baseline", "tables_one", "tables_two")
    shop.tables(tmp_path / "migrations/main", "first")
    with Databases(shop.settings(tmp_path, urls) | {"default": "main"}) as dbs:
        for attempt in (upgrade, downgrade, stamp):
            with pytest.raises(UnknownRevision, match=told):
                attempt(dbs, revision=target)
        assert list(tmp_path.glob("*.db")) == []
        assert upgrade(dbs, "log", "baseli")[0].revisions == ("baseline",)  # a beginning that is one's alone
        assert upgrade(dbs, "log", "+1")[0].revisions == ("tables_one",)
        assert downgrade(dbs, "baseline", "log")[0].revisions == ("tables_one",)


def test_wait_ends_when_the_database_answers_or_says_why_not() -> None:
    with Databases({"databases": {"main": {"url": "sqlite://"}}}) as dbs:
        wait(dbs)
    with (
        Databases({"databases": {"main": {"url": "postgresql://ada:tiger@127.0.0.1:1/x"}}}) as dbs,
        pytest.raises(MigrationError, match="'main' did not answer in 0 s"),
    ):
        wait(dbs, timeout=0)


@pytest.mark.alone
def test_nobody_waits_long_behind_an_alter_that_waits_for_a_reader(postgresql_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    with shop.databases(tmp_path, postgresql_database) as dbs:
        upgrade(dbs)
        shop.write(tmp_path / "migrations/main", "b", 'op.add_column("a", sa.Column("x", sa.Integer))', down="a")
        engine, waits = dbs.main.reader_engine, list[float]()
        with dbs.main.connect() as reader, ThreadPoolExecutor(1) as pool:
            reader.execute(text("select * from a"))
            until = monotonic() + 3.0
            upgrading = pool.submit(upgrade, dbs)
            while monotonic() < until and not upgrading.done():
                begin = monotonic()
                with engine.connect() as other:
                    other.execute(text("select * from a")).all()
                waits.append(monotonic() - begin)
            reader.rollback()
            assert upgrading.result(60)[0].revisions == ("b",)
    assert max(waits) < 0.3
    assert max(waits) > 0.1  # the ALTER did wait, and others behind it
