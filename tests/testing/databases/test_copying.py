"""
A copy on MariaDB, where the server copies nothing by itself, against what was copied.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from stillroom import Databases
from stillroom.testing.options import TestOptions
from stillroom.testing.provisioning import provide
from stillroom.testing.servers import wait_until
from tests.testing.databases.support import PATIENCE, Application, execute, rows, seeded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

SCHEMA = """
    for statement in [
        "create sequence counter start with 5 increment by 2 nocache",
        "select nextval(counter)",
        '''create table author (
            id int auto_increment primary key, name varchar(20) not null, editor_id int,
            upper_name varchar(20) as (upper(name)) stored, short_name varchar(3) as (left(name, 3)) virtual,
            hidden int invisible default 3, born date default current_date,
            number int default nextval(counter),
            unique (name), check (name <> 'nobody'),
            constraint edited foreign key (editor_id) references author (id) on delete set null
        ) comment 'people; 100%% of :them' ''',
        '''create table work (
            id int auto_increment primary key, author_id int not null,
            constraint written foreign key (author_id) references author (id) on delete cascade
        ) auto_increment = 40''',
        "create table log (what varchar(50))",
        "create view z_names as select name from author",
        "create view a_names as select name from z_names where name like 'A%%'",
        '''create function double_it(x int) returns int deterministic return 2 * x''',
        '''create procedure note(in what varchar(50)) begin insert into log values (what); end''',
        "create view doubled as select double_it(id) as id from author",
        "create trigger first_one after insert on author for each row insert into log values (concat('1 ', new.name))",
        "create trigger second_one after insert on author for each row call note(concat('2 ', new.name))",
        "insert into author (name, hidden) values ('Ada', 9)",
        "set session sql_mode = concat(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')",
        "insert into author (id, name, editor_id) values (0, 'Zero', 1)",
        "insert into work (author_id) values (1)",
    ]:
        op.get_bind().exec_driver_sql(statement)
"""


@pytest.fixture
def copied(mariadb_place: str, tmp_path: Path) -> Iterator[tuple[URL, URL]]:
    """
    The URLs of a template and of a copy of it.
    """
    application = Application(tmp_path, mariadb_place)
    application.revision(SCHEMA)
    with application.databases() as dbs, provide(dbs, TestOptions()) as made:
        url = made["main"].url
        yield url.set(database=made["main"].template.name), url


def described(url: URL) -> dict[str, Any]:
    """
    Read all that a database says of itself, with its own name taken out.
    """
    name = str(url.database)
    found: dict[str, Any] = {}
    for row in execute(url, "show full tables"):
        table, kind = row
        if table != "stillroom_template":
            said = execute(url, f"show create {'view' if kind == 'VIEW' else 'table'} `{table}`")[0][1]
            found[table] = said.replace(name, "…")
    for kind in ("function double_it", "procedure note", "trigger first_one", "trigger second_one"):
        found[kind] = [str(each).replace(name, "…") for each in execute(url, f"show create {kind}")[0][:5]]
    return found


def test_every_object_is_the_same(copied: tuple[URL, URL]) -> None:
    template, copy = copied
    assert described(copy) == described(template)
    assert "stillroom_template" not in rows(copy, "show tables")


def test_every_row_is_the_same_the_hidden_columns_too(copied: tuple[URL, URL]) -> None:
    for query in (
        "select id, name, editor_id, upper_name, short_name, hidden, born, number from author order by id",
        "select * from work",
        "select * from log order by what",
        "select * from a_names",
        "select * from doubled order by 1",
    ):
        first, second = (rows(url, query) for url in copied)
        assert first == second
        assert first


def test_numbers_go_on_where_they_were(copied: tuple[URL, URL]) -> None:
    _, copy = copied
    execute(copy, "insert into author (name) values ('Next')", "insert into work (author_id) values (1)")
    assert rows(copy, "select id, number from author where name = 'Next'") == [(3, 11)]  # as in the template
    assert rows(copy, "select max(id) from work") == [41]


def test_constraints_hold(copied: tuple[URL, URL]) -> None:
    for statement in (
        "insert into work (author_id) values (99)",
        "insert into author (name) values ('nobody')",
        "insert into author (name) values ('Ada')",
        "update author set editor_id = 99",
    ):
        with pytest.raises(DBAPIError):
            execute(copied[1], statement)


def test_triggers_fire_in_their_order_and_in_the_copy(copied: tuple[URL, URL]) -> None:
    template, copy = copied
    before = rows(template, "select * from log")
    execute(copy, "insert into author (name) values ('Bo')")
    assert [each for each in rows(copy, "select * from log") if "Bo" in each] == ["1 Bo", "2 Bo"]
    assert rows(template, "select * from log") == before


def test_a_template_that_changes_while_it_is_copied_is_copied_again(mariadb_place: str, tmp_path: Path) -> None:
    application = Application(tmp_path, mariadb_place)
    with application.databases() as dbs, provide(dbs, seeded()) as made, ThreadPoolExecutor(1) as pool:
        url = made["main"].url
        template = url.set(database=made["main"].template.name)
        waiting = (
            f"select count(*) from information_schema.processlist where db = '{url.database}' and state like 'Waiting%'"
        )
        with Databases(dbs.settings.replace("main", url=template)) as other, other.main.connect() as connection:
            connection.execute(text("lock tables book write"))
            copying = pool.submit(made["main"].remake)
            wait_until(
                lambda: copying.done() or rows(url.set(database="information_schema"), waiting) == [1],
                "it copies",
                timeout=PATIENCE,
            )
            connection.execute(text("delete from book"))
            execute(template, "drop table stillroom_template")  # as somebody does who makes it anew
            connection.execute(text("unlock tables"))
        copying.result(PATIENCE)
        assert rows(url) == ["seed"]
    assert application.runs == 2
