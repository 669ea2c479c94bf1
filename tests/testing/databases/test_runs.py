"""
Runs side by side in processes of their own, and runs that are killed.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from stillroom import Databases
from stillroom.testing.errors import TestingError
from stillroom.testing.provisioning import provide
from stillroom.testing.servers import wait_until
from tests.testing.databases.support import (
    PATIENCE,
    Application,
    exists,
    finish,
    kill,
    names_on,
    rows,
    seeded,
    start,
    url_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Starter = Callable[..., subprocess.Popen[str]]

STOPS = """
    import pathlib, time
    end = time.monotonic() + {patience}
    while not pathlib.Path({gate!r}).exists() and time.monotonic() < end: time.sleep(0.01)
"""
"""In a revision: waits for a file, with the table made."""


@pytest.fixture
def application(place: str, tmp_path: Path) -> Application:
    """
    An application on each backend in turn.
    """
    return Application(tmp_path, place)


@pytest.fixture
def started() -> Iterator[Starter]:
    """
    Start processes, and see to their end.
    """
    with ExitStack() as stack:

        def begin(application: Application, **options: Any) -> subprocess.Popen[str]:
            process = start(application.settings, **options)
            stack.callback(process.communicate, timeout=PATIENCE)
            stack.callback(process.kill)
            return process

        yield begin


def wait_until_it_runs(application: Application, process: subprocess.Popen[str]) -> None:
    wait_until(lambda: application.runs == 1 or process.poll() is not None, "the revision runs", timeout=PATIENCE)
    assert process.poll() is None, process.communicate()[1]


def test_workers_that_start_at_once_run_each_revision_once_in_all(application: Application, started: Starter) -> None:
    workers = [started(application, worker=f"gw{number}", run="r") for number in range(4)]
    urls = [url_of(process) for process in workers]
    assert len(set(urls)) == 4
    assert [rows(url) for url in urls] == [["seed"]] * 4
    for process in workers:
        finish(process)
    assert application.runs == 1
    assert not any(map(exists, urls))


def test_workers_of_a_fresh_run_make_the_template_once(sqlite_place: str, tmp_path: Path, started: Starter) -> None:
    application = Application(tmp_path, sqlite_place)
    with application.databases() as dbs, provide(dbs, seeded()):
        pass
    workers = [started(application, worker=f"gw{number}", run="r", fresh=True) for number in range(2)]
    for process in workers:
        assert rows(url_of(process)) == ["seed"]
    for process in workers:
        finish(process)
    assert application.runs == 2


def test_a_template_whose_maker_was_killed_is_made_anew(application: Application, started: Starter) -> None:
    gate = application.directory / "gate"
    application.revision(STOPS.format(patience=PATIENCE, gate=str(gate)))
    process = started(application)
    wait_until_it_runs(application, process)
    kill(process)
    gate.touch()
    with application.databases() as dbs, provide(dbs, seeded()) as made:
        assert rows(made["main"].url) == ["seed"]
    assert application.runs == 2
    # Nothing is left of the half.
    names = names_on(dbs.main.settings.url)
    assert [name for name in names if "making" in name or not name.startswith("tpl_")] == []


def test_the_database_of_a_run_that_was_killed_is_taken_over(application: Application, started: Starter) -> None:
    process = started(application, keep=True)
    url = url_of(process)
    with Databases({"databases": {"main": {"url": url}}}) as dbs, dbs.unit_of_work() as unit:
        unit.main.execute(text("insert into book (id, title) values (2, 'half done')"))
    kill(process)
    assert exists(url)

    def taken_over() -> bool:
        # The server gives the lock back when it notices the end of the connection.
        with application.databases() as dbs, provide(dbs, seeded(keep=True)) as made:
            assert rows(made["main"].url) == ["seed"]
            return made["main"].url.render_as_string(hide_password=False) == url

    wait_until(taken_over, "the name is free", timeout=PATIENCE)
    assert application.runs == 1


def test_a_process_that_was_forked_off_keeps_no_lock(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from stillroom.testing.provisioning.files import LockedFile\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "first, second = LockedFile(path), LockedFile(path)\n"
        "reading, writing = os.pipe()\n"
        "taken = [first.acquire(), second.acquire()]\n"
        "if not os.fork():\n"
        "    os.close(writing)\n"
        "    os._exit(len(os.read(reading, 1)))\n"
        "first.release()\n"
        "print(*taken, second.acquire())\n"
    )
    asked = [sys.executable, "-c", program, str(tmp_path / "x")]
    answer = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout
    assert answer == "True False True\n"


def test_who_waits_too_long_is_told_for_whom(application: Application) -> None:
    told: list[str] = []
    with application.databases() as dbs, provide(dbs, seeded()) as made:
        template = made["main"].template
        with template.server.locked(template.name):
            template.server.drop_template(template.name)
            with pytest.raises(TestingError, match=r"by another process \((server process|connection|process) \d+"):
                with provide(dbs, seeded(wait=0.1, notice=told.append)):
                    pass
        assert any("waiting for another process" in each for each in told)
        with provide(dbs, seeded()):
            pass
    assert application.runs == 2
