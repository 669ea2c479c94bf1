"""
The pytest plugin, used as an application's own tests use it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION = """
from sqlalchemy import String, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from stillroom import Databases

class Base(DeclarativeBase): ...

class Album(Base):
    __tablename__ = "album"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50))

dbs = Databases()

def add(title="x", name="main"):
    with dbs.unit_of_work() as uow:
        uow.session(name).add(Album(title=title))

def count(name="main"):
    with dbs.unit_of_work() as uow:
        return uow.session(name).scalar(select(func.count()).select_from(Album))
"""

HEAD = """
import pytest
from shop import Album, add, count, dbs
from sqlalchemy import select
"""

MIXED = (
    HEAD
    + """
@pytest.mark.parametrize("number", range(3))
def test_sandbox(number, databases):
    assert (count(), count("audit")) == (0, 0)
    add(), add(name="audit")
    assert (count(), count("audit")) == (1, 1)

@pytest.mark.databases(isolation="committed")
@pytest.mark.parametrize("number", range(3))
def test_committed(number):
    assert (count(), count("audit")) == (0, 0)
    add(), add(name="audit")
    assert (count(), count("audit")) == (1, 1)

@pytest.mark.databases("main", isolation="clone")
@pytest.mark.parametrize("number", range(2))
def test_clone(number):
    assert count() == 0
    add()
    assert count() == 1

@pytest.mark.databases("main")
def test_one_database():
    add()
    with pytest.raises(Exception, match="'audit' was used"):
        count("audit")

def test_unit(uow, session):
    session.add(Album(title="a"))
    uow.commit()
    session.add(Album(title="b"))
    session.flush()
    assert count() == 2

def test_without_databases():
    pass
"""
)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.syspath_prepend(str(pytester.path))


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """
    An application with two databases in SQLite files, and a configuration of pytest.
    """
    return make_project(pytester, f"sqlite:///{pytester.path}/shop_test.db")


def make_project(pytester: pytest.Pytester, url: str) -> pytest.Pytester:
    pytester.makepyfile(shop=APPLICATION)
    pytester.makefile(
        ".toml",
        stillroom=f"""
        default = "main"
        [databases.main]
        url = "postgresql://shop@db.example/shop"
        metadata = "shop:Base"
        [databases.audit]
        url = "postgresql://shop@db.example/audit"
        metadata = "shop:Base"
        [profiles.test.databases.main]
        url = "{url}"
        [profiles.test.databases.audit]
        url = "sqlite:///{pytester.path}/audit_test.db"
        """,
    )
    pytester.makeini(
        """
        [pytest]
        stillroom_databases = shop:dbs
        """
    )
    return pytester


def run(project: pytest.Pytester, *arguments: str, randomly: bool = False) -> pytest.RunResult:
    plugins = ("-p", "no:asyncio", *(() if randomly else ("-p", "no:randomly")), "-p", "no:cacheprovider")
    return project.runpytest_inprocess(*plugins, *arguments)


def test_tests_of_all_modes_leave_nothing_to_each_other(project: pytest.Pytester) -> None:
    project.makepyfile(MIXED)
    run(project).assert_outcomes(passed=11)


def test_any_order_gives_the_same_result(project: pytest.Pytester) -> None:
    project.makepyfile(MIXED)
    for seed in range(8):
        run(project, f"--randomly-seed={seed}", randomly=True).assert_outcomes(passed=11)


def test_any_order_gives_the_same_result_on_postgresql(pytester: pytest.Pytester, postgresql_place: str) -> None:
    make_project(pytester, postgresql_place).makepyfile(MIXED)
    for seed in range(3):
        run(pytester, f"--randomly-seed={seed}", randomly=True).assert_outcomes(passed=11)


def test_workers_have_databases_of_their_own(pytester: pytest.Pytester, postgresql_place: str) -> None:
    make_project(pytester, postgresql_place).makepyfile(MIXED)
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-n", "2", timeout=100)
    result.assert_outcomes(passed=11)
    result.stdout.fnmatch_lines(["main: the test database is *_gw?_1'"])


def test_a_layer_is_seen_by_its_module_alone(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_a=HEAD
        + """
@pytest.fixture(scope="module")
def shelf(module_databases):
    with module_databases.unit_of_work() as uow:
        uow.main.add(Album(title="shelf"))

def test_one(shelf, databases):
    assert count() == 1
    add()
    assert count() == 2

def test_two(shelf, databases):
    assert count() == 1

@pytest.mark.databases(isolation="committed")
def test_committed():
    assert count() == 0
    add()
""",
        test_b=HEAD + "def test_other(databases):\n    assert count() == 0\n",
    )
    run(project, "-v").assert_outcomes(passed=4)


def test_rows_of_the_session_are_seen_by_all(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
import pytest
from shop import Album

@pytest.fixture(scope="session")
def everybody(session_databases):
    with session_databases.unit_of_work() as uow:
        uow.main.add(Album(title="everybody"))
"""
    )
    body = HEAD + "def test_it(everybody, databases):\n    assert count() == 1\n    add()\n"
    committed = (
        HEAD + "@pytest.mark.databases(isolation='committed')\ndef test_it():\n    assert count() == 0\n    add()\n"
    )
    project.makepyfile(test_a=body, test_b=body, test_c=committed)
    run(project).assert_outcomes(passed=3)


def test_seeds_and_options_come_from_fixtures(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
import pytest
from shop import Album

@pytest.fixture(scope="session")
def database_seeds():
    return {"main": [lambda session: session.add(Album(title="seed"))]}
"""
    )
    project.makepyfile(HEAD + "def test_it(databases):\n    assert (count(), count('audit')) == (1, 0)\n")
    run(project).assert_outcomes(passed=1)


def test_the_databases_can_be_named_by_a_fixture(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\n")
    project.makeconftest(
        """
import pytest
from stillroom import Databases, Settings
from shop import dbs

@pytest.fixture(scope="session")
def application_databases():
    dbs.configure(Settings.load(profile="test"))
    return dbs
"""
    )
    project.makepyfile(HEAD + "def test_it(databases):\n    assert databases is dbs\n    assert count() == 0\n")
    run(project).assert_outcomes(passed=1)


def test_an_application_may_load_its_settings_while_a_unit_of_work_is_open(project: pytest.Pytester) -> None:
    project.makepyfile(
        HEAD
        + """
from stillroom import Settings

@pytest.fixture
def application():
    dbs.configure(Settings.load())

def test_unit_first(uow, application):
    uow.main.add(Album(title="x"))
    uow.commit()
    assert count() == 1

def test_application_first(application, uow):
    assert count() == 0
"""
    )
    run(project, "-k", "unit_first").assert_outcomes(passed=1, deselected=1)
    run(project, "-k", "application_first").assert_outcomes(passed=1, deselected=1)
    run(project).assert_outcomes(passed=2)


def test_without_a_name_it_is_told_where_to_write_it(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\n")
    project.makepyfile("def test_it(databases): ...")
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(['*stillroom_databases = "shop.db:dbs"*'])


def test_a_wrong_name_is_told(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nstillroom_databases = shop:databases\n")
    project.makepyfile("def test_it(databases): ...")
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*shop:databases*"])


@pytest.mark.parametrize(
    ("marker", "told"),
    [("isolation='sandboxed'", "*isolation='sandboxed'*"), ("names=['main']", "*does not know names*")],
)
def test_a_wrong_marker_is_told(project: pytest.Pytester, marker: str, told: str) -> None:
    project.makepyfile(HEAD + f"@pytest.mark.databases({marker})\ndef test_it(): ...")
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([told])


def test_strict_tests_use_the_default_database_alone(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nstillroom_databases = shop:dbs\nstillroom_strict = true\n")
    project.makepyfile(
        HEAD
        + """
def test_default(databases):
    assert count() == 0

def test_other(databases):
    count("audit")
"""
    )
    result = run(project)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*'audit' was used, but the test declared only 'main'*"])


def test_a_fixture_that_does_not_ask_for_databases_is_isolated_with_the_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        HEAD
        + """
@pytest.fixture
def application():
    add("made with the application")
    yield
    add("at its end")

@pytest.mark.parametrize("number", range(2))
def test_it(application, number, uow):
    assert count() == 1
"""
    )
    run(project).assert_outcomes(passed=2)


def test_a_leaked_transaction_is_reported_and_does_not_hold_up_the_end(
    pytester: pytest.Pytester, postgresql_place: str
) -> None:
    make_project(pytester, postgresql_place).makepyfile(
        HEAD
        + """
from sqlalchemy import text
kept = []

@pytest.mark.databases("main")
@pytest.mark.parametrize("isolation", ["sandbox", "committed"])
def test_it(request, isolation): ...

def leak():
    connection = dbs.main.engine.connect()
    kept.append(connection)
    connection.execute(text("insert into album (id, title) values (5, 'leaked')"))

@pytest.mark.databases("main")
def test_sandbox(): leak()

@pytest.mark.databases("main", isolation="committed")
def test_committed(): leak()

@pytest.mark.databases("main")
def test_after(): assert count() == 0
"""
    )
    begun = time.monotonic()
    result = run(pytester)
    assert time.monotonic() - begun < 60  # a hang would be for ever
    result.assert_outcomes(passed=5, errors=2)
    result.stdout.fnmatch_lines(["*LeakedTransaction*left open*"])


def test_databases_are_kept_and_made_fresh(project: pytest.Pytester) -> None:
    project.makepyfile(MIXED)
    first = run(project, "--db-keep")
    first.stdout.fnmatch_lines(["*making the template*"])
    second = run(project, "--db-keep")
    second.assert_outcomes(passed=11)
    second.stdout.no_fnmatch_line("*making the template*")
    fresh = run(project, "--db-fresh")
    fresh.stdout.fnmatch_lines(["*making the template*"])
    run(project, "--db-gc").assert_outcomes(passed=11)


def test_a_database_that_is_not_for_tests_is_refused(project: pytest.Pytester) -> None:
    project.makepyfile(HEAD + "def test_it(databases): ...")
    (project.path / "stillroom.toml").write_text(
        '[databases.main]\nurl = "postgresql://shop@127.0.0.1/latest"\nmetadata = "shop:Base"\n'
    )
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*NotATestDatabase*latest*"])


def test_queries_are_counted_for_the_applications_databases(project: pytest.Pytester) -> None:
    project.makepyfile(
        HEAD
        + """
def test_right(databases, assert_queries, assert_max_queries, count_queries, assert_no_repeats):
    with assert_queries(main=1), assert_max_queries(2), assert_no_repeats(), count_queries() as counted:
        count()
    assert counted.total == 1

def test_wrong(databases, assert_queries):
    with assert_queries(main=2):
        count()
"""
    )
    result = run(project)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*TooManyQueries*"])


ASYNCHRONOUS = """
{mark}
async def test_unit(async_uow, async_session):
    async_session.add(Album(title="a"))
    await async_uow.commit()
    assert len((await async_uow.main.scalars(select(Album))).all()) == 1

{mark}
@pytest.mark.databases(isolation="committed")
async def test_committed(async_session, async_uow):
    async_session.add(Album(title="a"))
    await async_uow.commit()
    assert len((await async_uow.main.scalars(select(Album))).all()) == 1

def test_after(databases):
    assert count() == 0
"""


def test_asynchronous_tests_under_anyio(pytester: pytest.Pytester, postgresql_place: str) -> None:
    make_project(pytester, postgresql_place).makepyfile(
        HEAD
        + "@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"
        + ASYNCHRONOUS.format(mark="@pytest.mark.anyio")
    )
    run(pytester).assert_outcomes(passed=3)


def test_asynchronous_tests_under_pytest_asyncio(pytester: pytest.Pytester, postgresql_place: str) -> None:
    make_project(pytester, postgresql_place).makepyfile(HEAD + ASYNCHRONOUS.format(mark="@pytest.mark.asyncio"))
    pytester.makeini("[pytest]\nstillroom_databases = shop:dbs\nasyncio_default_fixture_loop_scope = function\n")
    pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider", timeout=60).assert_outcomes(passed=3)


def test_a_server_is_started_only_where_it_is_asked_for(project: pytest.Pytester, tmp_path: Path) -> None:
    project.makepyfile(
        """
def test_server(pg_server):
    assert pg_server.sql("select 1") == "1"

def test_killed(pg_server):
    pg_server.kill()

def test_it_runs_again(pg_server):
    assert pg_server.sql("select 1") == "1"
"""
    )
    result = run(project)
    assert result.ret == 0
