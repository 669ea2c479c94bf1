"""The base of classes of tests of an application, in a run of its own."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# Given as it is: a module that is imported already is not wanted by its name.
PLUGIN = import_module("stillroom.testing.plugin")
IS_INSTALLED = any(each.value == PLUGIN.__name__ for each in entry_points(group="pytest11"))

SHOP = """
from sqlalchemy import String, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from stillroom import Databases

class Base(DeclarativeBase):
    pass

class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))

class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)

dbs = Databases()
made = []

class Shop:
    def __init__(self, where):
        self.where = where
        made.append(self)

    def names(self):
        with dbs.unit_of_work() as uow:
            return list(uow.main.scalars(select(User.name)))

    def register(self, name):
        with dbs.unit_of_work() as uow:
            uow.main.add(User(name=name))
"""
SETTINGS = """
default = "main"
[databases.main]
url = "sqlite:///shop.db"
metadata = "shop:Base"
[databases.audit]
url = "sqlite:///audit.db"
metadata = "shop:Base"
"""
TESTS = """
import pytest
from shop import Line, Shop, User, dbs, made
from stillroom.testing.application import ApplicationTests

class ShopTests(ApplicationTests):
    @classmethod
    def make_application(cls, databases):
        return Shop(databases.main.settings.url.database)
"""


def run(pytester: pytest.Pytester, tests: str) -> pytest.RunResult:
    """
    Run tests of the shop.
    """
    pytester.makefile(".toml", stillroom=SETTINGS)
    pytester.makepyfile(shop=SHOP, test_shop=TESTS + tests)
    pytester.makeini("[pytest]\npythonpath = .\nstillroom_databases = shop:dbs\n")
    plugins = [] if IS_INSTALLED else [PLUGIN]
    return pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:randomly", "-W", "error", "-rA", plugins=plugins
    )


def test_the_application_is_on_the_test_databases_and_what_it_commits_is_undone(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
class TestRegistering(ShopTests):
    def test_a_name_is_kept(self, application, dbsession):
        assert "test" in application.where and "shop.db" != application.where
        application.register("Ada")
        assert [user.name for user in dbsession.query(User)] == ["Ada"]

    def test_and_gone_in_the_next_test(self, application, dbplugin):
        assert application.names() == []
        assert dbplugin is dbs
""",
    )
    result.assert_outcomes(passed=2)
    assert not (pytester.path / "shop.db").exists()


def test_the_application_sees_what_the_test_commits(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
class TestReading(ShopTests):
    def test_rows_of_the_test(self, application, dbsession, uow):
        dbsession.add(User(name="Ada"))
        uow.commit()
        assert application.names() == ["Ada"]
""",
    ).assert_outcomes(passed=1)


def test_an_application_is_made_for_each_class(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
class TestFirst(ShopTests):
    def test_one(self, application):
        assert len(made) == 1

    def test_two(self, application):
        assert len(made) == 1

class TestSecond(ShopTests):
    def test_three(self, application):
        assert len(made) == 2
""",
    ).assert_outcomes(passed=3)


def test_the_session_is_on_the_database_that_the_class_names(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
class TestAudit(ShopTests):
    database = "audit"

    def test_it(self, dbsession, uow):
        assert dbsession is uow.audit
        dbsession.add(Line())
        dbsession.flush()
""",
    ).assert_outcomes(passed=1)


def test_an_application_that_needs_its_databases_asks_for_them(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
class TestLoading(ShopTests):
    @pytest.fixture
    def application(self, databases):
        shop = self.make_application(databases)
        shop.register("root")
        return shop

    def test_it(self, application):
        assert application.names() == ["root"]
""",
    ).assert_outcomes(passed=1)


def test_a_class_that_does_not_say_how_its_application_is_made_is_told(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
class TestNothing(ApplicationTests):
    def test_it(self, application):
        pass
""",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*TestNothing does not say how its application is made: override make_application*"])
