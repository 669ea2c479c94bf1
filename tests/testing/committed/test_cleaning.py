"""
After a test that really commits, the database holds exactly what it held before, whoever wrote and how.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, func, insert, select, text, update

from stillroom.testing.errors import TestingError

from .layout import city, contents, country, databases, isolated, keyless, person, pet, prepared, version

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from stillroom import Databases


def write_everything(connection: Connection) -> None:
    """
    Insert into every table, in cycles too, and change and delete seeds.
    """
    connection.execute(insert(country), {"id": 7, "name": "New", "part_of": 7})
    connection.execute(insert(city), {"id": 70, "country_id": 7})
    connection.execute(insert(person), [{"id": 1, "boss_id": 1, "city_id": 70}, {"id": 2, "boss_id": 1, "city_id": 10}])
    connection.execute(insert(pet), {"id": 1, "owner_id": 1})
    connection.execute(update(person).values(favourite_id=1))
    connection.execute(update(city).where(city.c.id == 20).values(country_id=7))
    connection.execute(update(country).where(country.c.id == 1).values(name="Dystopia"))
    connection.execute(delete(country).where(country.c.id == 2))
    connection.execute(insert(country), {"id": 8, "name": "Atlantis"})
    connection.execute(update(keyless).where(keyless.c.word == "two").values(word="three"))
    connection.execute(insert(keyless), {"word": "one"})


def test_what_a_test_commits_is_there_for_others_and_gone_after_it(any_database: str) -> None:
    with prepared(any_database, seeds=False) as (dbs, committed):
        before = contents(any_database)
        committed.begin()
        with dbs.main.begin() as connection:
            connection.execute(insert(country), {"id": 1, "name": "x"})
        assert contents(any_database) != before
        assert committed.end() == []
        assert contents(any_database) == before


def test_rows_in_cycles_and_seeds_changed_in_every_way_are_put_back_again_and_again(any_database: str) -> None:
    with prepared(any_database) as (dbs, committed):
        before = contents(any_database)
        for _ in range(3):
            committed.begin()
            with dbs.main.begin() as connection:
                write_everything(connection)
            assert contents(any_database) != before
            assert committed.end() == []
            assert contents(any_database) == before


def test_all_seeds_can_be_deleted(any_database: str) -> None:
    with prepared(any_database) as (dbs, committed):
        before = contents(any_database)
        committed.begin()
        with dbs.main.begin() as connection:
            connection.execute(update(country).values(part_of=None))
            for table in (keyless, city, country):
                connection.execute(delete(table))
        committed.end()
        assert contents(any_database) == before


def test_the_key_of_a_seed_can_be_changed(any_database: str) -> None:
    with prepared(any_database) as (dbs, committed):
        before = contents(any_database)
        committed.begin()
        with dbs.main.begin() as connection:
            connection.execute(update(city).where(city.c.id == 10).values(id=11))
        committed.end()
        assert contents(any_database) == before


def test_unique_values_of_seeds_can_change_places(any_database: str) -> None:
    with prepared(any_database) as (dbs, committed):
        before = contents(any_database)
        committed.begin()
        with dbs.main.begin() as connection:
            for number, name in ((1, "?"), (2, "Utopia"), (1, "Atlantis")):
                connection.execute(update(country).where(country.c.id == number).values(name=name))
        committed.end()
        assert contents(any_database) == before


def test_a_unit_of_work_a_reader_and_threads_leave_nothing(any_database: str) -> None:
    def work(number: int) -> None:
        with dbs.unit_of_work() as uow:
            uow.main.execute(insert(country), {"id": number, "name": str(number)})
            uow.reader.execute(select(country)).all()

    with prepared(any_database) as (dbs, committed):
        before = contents(any_database)
        committed.begin()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(10, 20)))
        assert committed.end() == []
        assert contents(any_database) == before


ASYNC = {"postgresql": ("psycopg", "asyncpg"), "mysql": ("aiomysql", "asyncmy"), "sqlite": ("aiosqlite",)}


def async_urls(url: str) -> list[str]:
    name, _, rest = url.partition("://")
    kind = "mysql" if name.startswith(("mysql", "mariadb")) else name.partition("+")[0]
    return [f"{kind}+{driver}://{rest}" for driver in ASYNC[kind]]


def test_asyncio_leaves_nothing_and_the_end_may_come_inside_the_loop(any_database: str) -> None:
    async def work(dbs: Databases, number: int) -> None:
        async with dbs.async_unit_of_work() as uow:
            await uow.main.execute(insert(country), {"id": number, "name": str(number)})

    for url in async_urls(any_database):
        with prepared(url, seeds=url == async_urls(any_database)[0]) as (dbs, committed):
            before = contents(any_database)

            async def main(dbs: Databases = dbs, committed: object = committed) -> None:
                committed.begin()  # type: ignore[attr-defined]  # bound for the loop
                await asyncio.gather(*(work(dbs, number) for number in range(10, 14)))
                assert committed.end() == []  # type: ignore[attr-defined]  # the same
                await dbs.aclose()

            asyncio.run(main())
            assert contents(any_database) == before


def test_without_a_synchronous_driver_the_asynchronous_one_cleans(
    postgresql_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with prepared(postgresql_database) as (dbs, _):
        before = contents(postgresql_database)
        with databases(postgresql_database.replace("postgresql:", "postgresql+asyncpg:")) as others:
            for name in ("psycopg", "psycopg2"):
                monkeypatch.setitem(sys.modules, name, None)
            with isolated(others) as committed:
                committed.begin()
                monkeypatch.undo()
                with dbs.main.begin() as connection:
                    write_everything(connection)
                assert committed.end() == []
        assert contents(postgresql_database) == before


def test_what_another_process_writes_is_cleaned(any_database: str) -> None:
    program = (
        "import sys; from stillroom import Database; from sqlalchemy import text\n"
        "with Database(sys.argv[1]) as database, database.begin() as connection:\n"
        "    connection.execute(text(\"insert into country (id, name) values (9, 'x')\"))\n"
        '    connection.execute(text("update city set country_id = 9 where id = 10"))\n'
    )
    with prepared(any_database) as (_, committed):
        before = contents(any_database)
        committed.begin()
        subprocess.run([sys.executable, "-c", program, any_database], check=True, timeout=60)
        assert contents(any_database) != before
        committed.end()
        assert contents(any_database) == before


TRIGGERS = {
    "sqlite": ["create trigger noting after insert on country begin insert into noted values (new.id); end"],
    "postgresql": [
        (
            "create function noting() returns trigger language plpgsql as "
            "$$ begin insert into noted values (coalesce(new.id, old.id)); return coalesce(new, old); end $$"
        ),
        "create trigger noting before insert or update or delete on country for each row execute function noting()",
    ],
    "mysql": [
        f"create trigger noting_{event} after {event} on country for each row insert into noted values ({row}.id)"
        for event, row in (("insert", "new"), ("update", "new"), ("delete", "old"))
    ],
}


def test_what_triggers_write_is_cleaned_and_cleaning_calls_none_in_vain(any_database: str) -> None:
    with prepared(any_database) as (dbs, committed):
        with dbs.main.begin() as connection:
            connection.execute(text("create table noted (id int)"))
            for statement in TRIGGERS[connection.dialect.name.replace("mariadb", "mysql")]:
                connection.exec_driver_sql(statement)
        before = contents(any_database)
        for _ in range(2):
            committed.begin()
            with dbs.main.begin() as connection:
                write_everything(connection)
            committed.end()
            assert contents(any_database) == before


def test_tables_of_migrations_are_left_alone(postgresql_database: str) -> None:
    with prepared(postgresql_database) as (dbs, committed):
        committed.begin()
        with dbs.main.begin() as connection:
            connection.execute(update(version).values(version_num="def"))
        committed.end()
        assert contents(postgresql_database)["public.alembic_version"] == ["('def',)"]


def test_the_rows_of_a_table_that_a_test_makes_are_cleaned(any_database: str) -> None:
    with prepared(any_database) as (dbs, committed):
        before = contents(any_database)
        committed.begin()
        with dbs.main.begin() as connection:
            connection.execute(text("create table more (id int)"))
            connection.execute(text("insert into more values (1)"))
        committed.end()
        after = contents(any_database)
        assert [rows for name, rows in after.items() if name.endswith(".more")] in ([], [[]])
        assert {name: rows for name, rows in after.items() if not name.endswith(".more")} == before


def test_a_test_may_drop_a_table_without_seeds(any_database: str) -> None:
    with prepared(any_database) as (dbs, committed):
        with dbs.main.begin() as connection:
            connection.execute(text("create table gone (id int)"))
        committed.begin()
        with dbs.main.begin() as connection:
            connection.execute(text("drop table gone"))
            connection.execute(insert(country), {"id": 9, "name": "x"})
        committed.end()
        assert len(next(rows for name, rows in contents(any_database).items() if name.endswith(".country"))) == 3


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_table_with_seeds_that_was_dropped_is_an_error(kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{kind}_database")
    with prepared(url) as (dbs, committed):
        committed.begin()
        with dbs.main.begin() as connection:
            connection.execute(text("drop table keyless"))
        with pytest.raises(TestingError, match=r"dropped tables of 'main' that hold seeds.*made anew"):
            committed.end()


def test_an_end_without_a_begin_does_nothing(sqlite_database: str) -> None:
    with prepared(sqlite_database) as (_, committed):
        assert committed.end() == []


def test_what_was_made_anew_is_noted_anew(any_database: str) -> None:
    with prepared(any_database) as (dbs, committed):
        committed.begin()
        committed.end()
        with dbs.main.begin() as connection:
            connection.execute(insert(country), {"id": 9, "name": "x"})
        committed.forget()
        before = contents(any_database)
        committed.begin()
        with dbs.main.begin() as connection:
            connection.execute(delete(country).where(country.c.id == 9))
        committed.end()
        assert contents(any_database) == before


def test_a_database_in_memory_is_cleaned() -> None:
    with prepared("sqlite://") as (dbs, committed):
        committed.begin()
        with dbs.main.begin() as connection:
            write_everything(connection)
        committed.end()
        with dbs.main.connect() as connection:
            assert connection.scalar(select(func.count()).select_from(person)) == 0
            assert connection.scalars(select(country.c.name).order_by(country.c.id)).all() == [
                "Nowhere",
                "Utopia",
                "Atlantis",
            ]
