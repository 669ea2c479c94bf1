"""Many starters: one migrates, the others wait, and a holder that dies is not waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from stillroom import Databases
from stillroom.migrations import MigrationLocked, MigrationsFailed, Options, status, upgrade
from stillroom.testing.servers import wait_until
from tests.migrations import shop

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 60.0
"""Seconds that another process may take."""
HANG = 30.0
"""Seconds after which a statement that takes a moment waits for somebody who waits for it."""

WAITS = """
from pathlib import Path
from time import sleep
Path({began!r}).touch()
for _ in range(6000):
    if Path({go!r}).exists():
        break
    sleep(0.01)
"""


def waits(tmp_path: Path) -> str:
    return WAITS.format(began=str(tmp_path / "began"), go=str(tmp_path / "go"))


def test_four_processes_run_each_revision_once(any_database: str, tmp_path: Path) -> None:
    given = shop.settings(tmp_path, {"main": any_database})
    shop.tables(tmp_path / "migrations/main", "a", "b", "c", "d", "e")
    started = [shop.start_upgrade(given) for _ in range(4)]
    ended = [(*process.communicate(timeout=PATIENCE), process.returncode) for process in started]
    assert [code for _, _, code in ended] == [0, 0, 0, 0], ended
    ran = [line for out, _, _ in ended for line in out.splitlines() if "waiting" not in line and line]
    assert ran == ["a b c d e"]


def test_a_holder_is_named_and_its_death_frees_the_lock(any_database: str, tmp_path: Path) -> None:
    given = shop.settings(tmp_path, {"main": any_database})
    shop.tables(tmp_path / "migrations/main", "a")
    shop.write(tmp_path / "migrations/main", "b", waits(tmp_path) + 'op.execute("create table b (id int)")', down="a")
    holder = shop.start_upgrade(given)
    try:
        wait_until((tmp_path / "began").exists, "the holder is in the second revision", timeout=PATIENCE)
        with Databases(given) as dbs:
            with pytest.raises(MigrationsFailed, match="being migrated by another process") as caught:
                upgrade(dbs, options=Options(wait=0))
            assert isinstance(caught.value.__cause__, MigrationLocked)
            if any_database.startswith("sqlite"):
                assert f"(process {holder.pid})" in str(caught.value)
            holder.kill()
            holder.wait(PATIENCE)
            (tmp_path / "go").touch()
            assert upgrade(dbs)[0].revisions == ("b",)
            assert status(dbs)[0].current == ("b",)
    finally:
        holder.kill()
        holder.communicate(timeout=PATIENCE)


def test_an_index_is_made_concurrently_while_another_process_waits(postgresql_database: str, tmp_path: Path) -> None:
    given = shop.settings(tmp_path, {"main": postgresql_database})
    shop.tables(tmp_path / "migrations/main", "a")
    concurrently = """
with op.get_context().autocommit_block():
    op.create_index("a_id", "a", ["id"], postgresql_concurrently=True)
"""
    shop.write(tmp_path / "migrations/main", "b", waits(tmp_path) + concurrently, down="a")
    first, second = shop.start_upgrade(given), None
    try:
        wait_until((tmp_path / "began").exists, "the first is in the revision", timeout=PATIENCE)
        second = shop.start_upgrade(given)
        assert second.stdout is not None
        assert "waiting for another process" in second.stdout.readline()
        (tmp_path / "go").touch()
        assert first.communicate(timeout=HANG)[0].split() == ["a", "b"]
        assert second.communicate(timeout=PATIENCE)[0].split() == []
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.communicate(timeout=PATIENCE)
    with Databases(given) as dbs, dbs.main.connect() as connection:
        valid = connection.execute(text("select indisvalid from pg_index where indexrelid = 'a_id'::regclass"))
        assert valid.scalar() is True
