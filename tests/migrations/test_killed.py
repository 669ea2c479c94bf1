"""A process that is killed in the midst of a revision: the next one finishes, and nothing is done twice or left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import inspect, text

from stillroom import Databases
from stillroom.migrations import (
    MigrationError,
    MigrationsFailed,
    Options,
    UnfinishedRevision,
    check,
    downgrade,
    stamp,
    status,
    upgrade,
)
from stillroom.migrations.applied import Log
from stillroom.testing.servers import wait_until
from tests.migrations import shop

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 60.0

STOP = """
from pathlib import Path
from time import sleep
Path({began!r}).touch()
for _ in range(6000):
    if Path({go!r}).exists():
        break
    sleep(0.01)
"""
CONCURRENTLY = """
with op.get_context().autocommit_block():
    op.create_index("a_x", "a", ["x"], postgresql_concurrently=True)
    {stop}
    op.execute("insert into a (id, x) values (3, 3)")
"""
INDEX = 'op.create_index("a_x", "a", ["x"])\n{stop}\nop.execute("insert into a (id, x) values (3, 3)")'
REVISIONS = {
    "a": 'op.execute("create table a (id int primary key, x int)")\n{stop}',
    "b": 'op.execute("insert into a values (1, 1)")\n{stop}\nop.execute("insert into a values (2, 2)")',
    "c": 'op.execute("alter table a add column y int")\nop.execute("update a set y = x")\n{stop}\n'
    'op.execute("create table c (id int)")',
    "d": "",
    "e": 'op.add_column("c", sa.Column("x", sa.Integer))\nop.execute("insert into c values (1, 1)")\n'
    'op.execute("alter table c add column y int")\n{stop}\nop.execute("insert into c values (2, 2, 2)")',
}


def revisions(tmp_path: Path, texts: dict[str, str]) -> None:
    down = None
    for name, body in texts.items():
        stop = STOP.format(began=str(tmp_path / f"began-{name}"), go=str(tmp_path / f"go-{name}")).strip()
        if "    {stop}" in body:
            stop = stop.replace("\n", "\n    ")
        shop.write(tmp_path / "migrations/main", name, body.replace("{stop}", stop), down=down)
        down = name


def kill_in(tmp_path: Path, name: str, given: dict[str, object]) -> None:
    """
    Start an upgrade, and kill it in a revision.
    """
    holder = shop.start_upgrade(given)
    try:
        began = tmp_path / f"began-{name}"
        wait_until(lambda: began.exists() or holder.poll() is not None, f"{name} runs", timeout=PATIENCE)
        assert holder.poll() is None, holder.communicate()
        holder.kill()
    finally:
        holder.kill()
        holder.communicate(timeout=PATIENCE)
        (tmp_path / f"go-{name}").touch()


def test_killed_at_each_revision_the_next_process_finishes(any_database: str, tmp_path: Path) -> None:
    given = shop.settings(tmp_path, {"main": any_database})
    revisions(tmp_path, REVISIONS | {"d": CONCURRENTLY if any_database.startswith("postgresql") else INDEX})
    for name in REVISIONS:
        kill_in(tmp_path, name, given)
    with Databases(given) as dbs:
        assert upgrade(dbs)[0].revisions == ("e",)
        assert check(dbs) == []
        with dbs.main.connect() as connection:
            assert connection.execute(text("select id, x, y from a order by id")).all() == [
                (1, 1, 1), (2, 2, 2), (3, 3, None)
            ]  # fmt: skip
            assert connection.execute(text("select id, x, y from c order by id")).all() == [(1, 1, None), (2, 2, 2)]
            assert [each["name"] for each in inspect(connection).get_indexes("a")] == ["a_x"]
            assert connection.execute(text("select count(*) from stillroom_migrations")).scalar() == 5


TWO = {
    "a": 'op.execute("create table a (id int)")\nop.execute("create table b (id int)")\n{stop}\n'
    'op.execute("insert into a values (1)")'
}


def test_how_far_a_killed_revision_got_is_told(mariadb_database: str, tmp_path: Path) -> None:
    given = shop.settings(tmp_path, {"main": mariadb_database})
    revisions(tmp_path, TWO)
    kill_in(tmp_path, "a", given)
    with Databases(given) as dbs:
        (found, _) = check(dbs)
        assert found.kind == "unfinished"
        assert "died at its statement 2 (create table b (id int))" in found.text
        assert status(dbs)[0].pending == ("a",)


def test_a_killed_revision_that_was_changed_is_refused(mariadb_database: str, tmp_path: Path) -> None:
    given = shop.settings(tmp_path, {"main": mariadb_database})
    revisions(tmp_path, TWO)
    kill_in(tmp_path, "a", given)
    shop.write(tmp_path / "migrations/main", "a", 'op.execute("create table other (id int)")')
    with Databases(given) as dbs:
        for _ in range(2):
            with pytest.raises(MigrationsFailed, match="its statement 1 is another one now") as caught:
                upgrade(dbs)
            assert isinstance(caught.value.__cause__, UnfinishedRevision)
            with pytest.raises(MigrationError, match="'nowhere'"):
                stamp(dbs, "nowhere")  # which forgets nothing
        stamp(dbs, "a")
        assert check(dbs) == []
        assert downgrade(dbs, "base")[0].revisions == ("a",)


def test_an_index_that_was_left_invalid_is_made_anew(postgresql_database: str, tmp_path: Path) -> None:
    given = shop.settings(tmp_path, {"main": postgresql_database})
    revisions(tmp_path, {"a": REVISIONS["a"].replace("{stop}", ""), "b": CONCURRENTLY})
    kill_in(tmp_path, "b", given)
    with Databases(given) as dbs:
        with dbs.main.begin() as connection:
            connection.execute(text("update pg_index set indisvalid = false where indexrelid = 'a_x'::regclass"))
        assert upgrade(dbs)[0].revisions == ("b",)
        with dbs.main.connect() as connection:
            valid = connection.execute(text("select indisvalid from pg_index where indexrelid = 'a_x'::regclass"))
            assert valid.scalar() is True


def test_a_failure_that_was_told_is_not_gone_on_behind(mariadb_database: str, tmp_path: Path) -> None:
    body = 'op.execute("create table a (id int)")\nop.execute("create table b (id int)")\n'
    path = shop.write(tmp_path / "migrations/main", "a", body + 'op.execute("alter table nowhere add column x int")')
    with shop.databases(tmp_path, mariadb_database) as dbs:
        with pytest.raises(MigrationsFailed, match="Undo them by hand"):
            upgrade(dbs)
        with dbs.main.begin() as connection:
            connection.execute(text("drop table a"))
            connection.execute(text("drop table b"))
        path.write_text(path.read_text(encoding="utf-8").replace("alter table nowhere", "alter table b"))
        upgrade(dbs)
        with dbs.main.connect() as connection:
            assert inspect(connection).has_table("a")


def test_what_could_never_be_made_is_not_taken_for_done(
    any_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = shop.settings(tmp_path, {"main": any_database})
    create = 'op.execute("create index{} a_x on missing (x)")'
    body = create.format("")
    if any_database.startswith("postgresql"):
        body = f"with op.get_context().autocommit_block():\n    {create.format(' concurrently')}"
    shop.write(tmp_path / "migrations/main", "a", body)
    with monkeypatch.context() as patched, Databases(given) as dbs:
        patched.setattr(Log, "forget", lambda *_: None)  # it died before it came to that
        with pytest.raises(MigrationsFailed):
            upgrade(dbs)
    with Databases(given) as dbs, pytest.raises(MigrationsFailed, match="'a' of the database 'main' failed"):
        upgrade(dbs)


def test_what_is_resumed_waits_for_a_lock_and_does_nothing_twice(postgresql_database: str, tmp_path: Path) -> None:
    given = shop.settings(tmp_path, {"main": postgresql_database})
    body = (
        'op.execute("create table a (x int)")\nop.execute("create table b (x int)")\n'
        'op.get_bind().execute(sa.text("select * from held for update")).all()\n'
        "with op.get_context().autocommit_block():\n"
        '    op.execute("create index concurrently a_x on a (x)")\n    {stop}'
    )
    revisions(tmp_path, {"a": body})
    told: list[str] = []
    with Databases(given) as dbs:
        with dbs.main.begin() as connection:
            connection.execute(text("create table held (x int)"))
            connection.execute(text("insert into held values (1)"))
        kill_in(tmp_path, "a", given)
        with dbs.main.connect() as holder:
            holder.execute(text("select * from held for update"))

            def notice(said: str) -> None:
                told.append(said)
                holder.rollback()

            assert upgrade(dbs, options=Options(notice=notice))[0].revisions == ("a",)
    assert any("trying again" in each for each in told)
