"""Many revisions become one: databases before, in the midst of and behind them go on."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from stillroom import Databases
from stillroom.migrations import MigrationError, RevisionRefused, check, downgrade, history, plan, squash, upgrade
from tests.migrations import shop
from tests.migrations.test_running import names

if TYPE_CHECKING:
    from pathlib import Path

SEED = '''
SQL = """
insert into a (id, note) values (1, 'two
  lines')
"""
'''
DATA = f"""{SEED}

def fill():
    op.execute(SQL)
"""


def five(tmp_path: Path) -> Path:
    directory = tmp_path / "migrations/main"
    shop.write(directory, "a", 'op.execute("create table a (id int, note varchar(20))")', 'op.drop_table("a")')
    path = shop.write(directory, "b", "fill()", 'op.execute("delete from a")', down="a")
    path.write_text(path.read_text(encoding="utf-8").replace("\n\ndef upgrade", f"\n{DATA}\n\ndef upgrade"))
    for name, down in {"c": "b", "d": "c", "e": "d"}.items():
        shop.tables(directory, name, down=down)
    return directory


def test_databases_anywhere_go_on_after_a_squash(any_database: str, tmp_path: Path) -> None:
    directory = five(tmp_path)
    urls = {f"db{at}": f"sqlite:///{tmp_path / f'{at}.db'}" for at in ("b", "d", "e")}
    given = shop.settings(tmp_path, {"main": any_database, **urls})
    for each in given["databases"].values():
        each["migrations"] = str(directory)
    with Databases(given) as dbs:
        upgrade(dbs, "dbb", "b")
        upgrade(dbs, "dbd", "d")
        upgrade(dbs, "dbe")
        written = squash(dbs, "main", "the first four", revision="d")
        assert (written.revision, written.changes) == ("d", ("a", "b", "c", "d"))
        assert [each.revision for each in history(dbs, "main")] == ["e", "d"]
        assert [each.revision for each in plan(dbs, "dbb")] == ["c", "d", "e"]
        ran = {each.database: each.revisions for each in upgrade(dbs)}
        assert ran == {"main": ("d", "e"), "dbb": ("c", "d", "e"), "dbd": ("e",), "dbe": ()}
        assert check(dbs) == []
        for name in dbs:
            assert names(dbs, name) == {"a", "c", "d", "e"}
            with dbs[name].connect() as connection:
                assert connection.execute(text("select note from a")).scalar() == "two\n  lines"


def test_a_squashed_revision_is_undone_as_a_whole_and_squashed_again(sqlite_database: str, tmp_path: Path) -> None:
    five(tmp_path)
    with shop.databases(tmp_path, sqlite_database) as dbs:
        upgrade(dbs, revision="b")
        squash(dbs, "main", revision="c")
        squash(dbs, "main", "all")
        assert len(history(dbs)) == 1
        assert upgrade(dbs)[0].revisions == ("c", "d", "e")
        assert check(dbs) == []
        assert downgrade(dbs, "base")[0].revisions == ("e",)
        assert names(dbs) == set()
        assert upgrade(dbs)[0].revisions == ("e",)


def test_a_database_amid_removed_files_is_told(sqlite_database: str, tmp_path: Path) -> None:
    directory = five(tmp_path)
    with shop.databases(tmp_path, sqlite_database) as dbs:
        upgrade(dbs, revision="b")
        squash(dbs, "main")
        for path in (directory / "versions/squashed/e").iterdir():
            path.unlink()
        assert [each.kind for each in check(dbs)] == ["unknown"]
        with pytest.raises(MigrationError, match="does not have that revision"):
            upgrade(dbs)


def test_what_cannot_become_one_is_refused_and_left_alone(tmp_path: Path) -> None:
    directory = five(tmp_path)
    shop.tables(directory, "other", down="b")
    with shop.databases(tmp_path, "sqlite://") as dbs:
        with pytest.raises(RevisionRefused, match="other stands on one that is not the last"):
            squash(dbs, "main", revision="d")
        with pytest.raises(RevisionRefused, match="there are not two of them"):
            squash(dbs, "main", revision="a")
        with pytest.raises(MigrationError, match="2 heads"):
            squash(dbs, "main")
    assert len(list((directory / "versions").glob("*.py"))) == 6
    assert not (directory / "versions/squashed").exists()


def test_what_another_revision_depends_on_is_not_squashed_away(tmp_path: Path) -> None:
    directory = five(tmp_path)
    path = directory / "versions/e.py"
    path.write_text(path.read_text(encoding="utf-8") + '\ndepends_on = "b"\n', encoding="utf-8")
    with shop.databases(tmp_path, "sqlite://") as dbs:
        with pytest.raises(RevisionRefused, match="e stands on one that is not the last"):
            squash(dbs, "main", revision="d")


def test_a_revision_whose_upgrade_would_be_lost_is_refused(tmp_path: Path) -> None:
    directory = five(tmp_path)
    path = directory / "versions/c.py"
    path.write_text(path.read_text(encoding="utf-8").replace("def upgrade", "def work") + "\n\nupgrade = work\n")
    with Databases(shop.settings(tmp_path, {"main": f"sqlite:///{tmp_path / 'a.db'}"})) as dbs:
        with pytest.raises(RevisionRefused, match="'upgrade' is not a function of that name"):
            squash(dbs, "main")
    assert path.exists()


STEPS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.copyfile"}
"""What the interpreter tells before it changes a directory; what is opened to be written comes with them."""


def squash_until(step: int, given: dict[str, Any], directory: str) -> None:
    """
    Squash in this process, which is killed before its change number `step` of the directory.
    """
    left = step

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]
        if (event in STEPS or writes) and str(arguments[0]).startswith(directory):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.dont_write_bytecode = True  # which would be a change as well, and another one each time
    with Databases(given) as dbs:
        sys.addaudithook(audit)
        squash(dbs, "main")


def found_by(dbs: Databases) -> str:
    """
    Return the revisions, or why they cannot be read.
    """
    try:
        return " ".join(each.revision for each in history(dbs))
    except MigrationError as error:
        return str(error)


@pytest.mark.skipif(sys.platform == "win32", reason="a forked process is killed")
def test_killed_at_any_step_a_squash_is_finished_or_was_not_begun(tmp_path: Path) -> None:
    ended = decided = 0
    for step in range(100):
        place = tmp_path / str(step)
        versions = five(place) / "versions"
        given = shop.settings(place, {"main": f"sqlite:///{place / 'midst.db'}"})
        with Databases(given) as dbs:
            upgrade(dbs, revision="b")
        process = get_context("fork").Process(target=squash_until, args=(step, given, str(versions)))
        process.start()
        process.join(60)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        ended += 1
        with Databases(given) as dbs:
            found = found_by(dbs)
            decided += "finish that with `stillroom squash main`" in found
            if found != "e":
                assert found == "e d c b a" or "finish that" in found
                assert squash(dbs, "main").changes == ("a", "b", "c", "d", "e")
            assert [each.name for each in versions.glob("*.py")] in (["e_squashed.py"], ["e.py"])
            assert {each.name for each in versions.iterdir()} <= {
                "e_squashed.py", "e.py", "squashed", "squashing", "__pycache__"
            }  # fmt: skip
            assert upgrade(dbs)[0].revisions == ("c", "d", "e")
            assert check(dbs) == []
    assert ended > 10
    assert decided == 4  # where one to four old files were left beside the new one


def test_a_file_that_was_changed_meanwhile_is_not_lost(tmp_path: Path) -> None:
    directory = five(tmp_path)
    given = shop.settings(tmp_path, {"main": f"sqlite:///{tmp_path / 'a.db'}"})
    text_of_a = (directory / "versions/a.py").read_text(encoding="utf-8")
    with Databases(given) as dbs:
        squash(dbs, "main")
        (directory / "versions/a.py").write_text(f"{text_of_a}\n# more", encoding="utf-8")
        with pytest.raises(RevisionRefused, match="is not the file that stands in"):
            squash(dbs, "main")
    assert (directory / "versions/a.py").exists()
