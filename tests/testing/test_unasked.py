"""
Tests that forgot to ask for their databases, before any other test has asked.
"""

from __future__ import annotations

import pytest

APPLICATION = """
from sqlalchemy import text
from stillroom import Databases, Settings

dbs = Databases()

def ask():
    with dbs.unit_of_work() as uow:
        return uow.main.scalar(text("SELECT 1"))
"""

SETTINGS = """
[databases.main]
url = "sqlite:///shop.db"
[profiles.test.databases.main]
url = "sqlite:///shop_test.db"
"""

CONFIGURED_AT_IMPORT = """
dbs.configure(Settings.load(profile="test"))
ask()
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """
    An application with a database, and a configuration of pytest that names it.
    """
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.syspath_prepend(str(pytester.path))
    pytester.makefile(".toml", stillroom=SETTINGS)
    pytester.makeini("[pytest]\nstillroom_databases = shop:dbs\n")
    return pytester


def run(project: pytest.Pytester) -> pytest.RunResult:
    plugins = ("-p", "no:asyncio", "-p", "no:randomly", "-p", "no:cacheprovider")
    # Python's own tracebacks: pytest parses whole files for its, and at some depths CPython 3.11 fails to parse them
    # ("AST constructor recursion depth mismatch").
    return project.runpytest_inprocess(*plugins, "--tb=native")


def test_the_database_of_the_settings_is_refused_to_a_test_that_did_not_ask(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import shop

        def test_forgot():
            shop.dbs.configure(shop.Settings.load())
            shop.ask()
        """,
        shop=APPLICATION,
    )
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*UndeclaredDatabase: the database 'main' was used, but no test*ask for `uow`*"])
    assert list(project.path.glob("*.db")) == []


def test_a_connection_of_import_time_is_refused_and_the_next_test_gets_its_own(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        import shop

        def test_forgot():
            with pytest.raises(Exception, match="'main' was used"):
                shop.ask()

        def test_asked(databases):
            assert shop.ask() == 1
        """,
        shop=APPLICATION + CONFIGURED_AT_IMPORT,
    )
    run(project).assert_outcomes(passed=2)


def test_an_application_that_only_a_fixture_imports_is_there_for_each_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        from sqlalchemy import text

        @pytest.mark.parametrize("number", range(3))
        def test_asked(uow, number):
            assert uow.main.scalar(text("SELECT 1")) == 1

        def test_forgot():
            import shop
            with pytest.raises(Exception, match="'main' was used, but no test is running"):
                shop.ask()
        """,
        shop=APPLICATION,
    )
    run(project).assert_outcomes(passed=4)


def test_an_application_that_is_not_used_is_neither_imported_nor_configured(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import sys

        def test_not_imported():
            assert "shop" not in sys.modules

        def test_not_configured():
            import shop
            assert not shop.dbs.is_configured
        """,
        shop=APPLICATION,
    )
    run(project).assert_outcomes(passed=2)


@pytest.mark.parametrize("scope", ["module", "session"])
def test_a_test_that_only_asks_for_a_data_layer_does_not_write_to_it(project: pytest.Pytester, scope: str) -> None:
    project.makepyfile(
        f"""
        import pytest
        import shop
        from sqlalchemy import text

        @pytest.fixture(scope="{scope}")
        def shelf({scope}_databases):
            with shop.dbs.unit_of_work() as uow:
                uow.main.execute(text("CREATE TABLE book (title TEXT)"))

        @pytest.mark.parametrize("number", range(2))
        def test_shelf(shelf, number):
            with shop.dbs.unit_of_work() as uow:
                assert uow.main.scalar(text("SELECT count(*) FROM book")) == 0
                uow.main.execute(text("INSERT INTO book VALUES ('x')"))
        """,
        shop=APPLICATION,
    )
    run(project).assert_outcomes(passed=2)
