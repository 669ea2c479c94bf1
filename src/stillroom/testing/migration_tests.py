"""Tests of every migration of every database, as a class to inherit from."""

from __future__ import annotations

import re
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import msgspec
import pytest

from stillroom.migrations import MigrationError, check, lint, upgrade
from stillroom.migrations.chain import Chain, chains, several_heads
from stillroom.migrations.running import in_words

from .migration_walk import History, MigrationTestFailed, Walk, throwaway
from .options import TestOptions
from .plugin import find_databases

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from stillroom import Databases

__all__ = ["MigrationTests"]

_REVISIONS = pytest.StashKey[dict[type, dict[str, list[str]]]]()
_HOOK = re.compile(r"(?:before|after)_upgrade_(\w+)")


class MigrationTests:
    """
    Tests of every migration of every database.

    A file of tests needs two lines::

        class TestMigrations(MigrationTests):
            pass

    Each database has one head; is upgraded from empty; takes each revision up, down and up again, where the downgrade
    leaves no trace; then has the tables of its models; each revision writes its SQL without a database, and is clean.
    All of that happens in databases made for it and dropped afterwards; files for SQLite.

    A revision that changes rows is tested over rows: `before_upgrade_<revision>(self, connection)` puts them in,
    `after_upgrade_<revision>(self, connection)` looks at what became of them. What is no letter or digit in a revision
    is an underscore there. Where two databases have revisions of the same name, the database's goes before it.

    Attributes:
        databases: The names of those that are tested; None for all that have migrations.
        skip: Names of tests that are left out, such as "test_lint", each with the reason.
        irreversible: Revisions that cannot be undone, each with the reason; they are only run.
        needs_database: Revisions whose SQL cannot be written without the database, each with the reason.
        lint_after: For a database by name: the newest revision that is too old to be linted.
    """

    databases: ClassVar[Sequence[str] | None] = None
    skip: ClassVar[Mapping[str, str]] = {}
    irreversible: ClassVar[Mapping[str, str]] = {}
    needs_database: ClassVar[Mapping[str, str]] = {}
    lint_after: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def find_databases(cls, config: pytest.Config) -> Databases:
        """
        Return the application's Databases while tests are collected; to be overridden where pytest's settings do not.
        """
        return find_databases(config)

    # --- what is tested

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """
        Make a test for each database, or for each revision of it.
        """
        if "database" not in metafunc.fixturenames:
            return
        revisions = self._revisions(metafunc.config)
        if "revision" in metafunc.fixturenames:
            pairs = [(name, revision) for name, known in revisions.items() for revision in known]
            metafunc.parametrize(("database", "revision"), pairs, ids=["-".join(pair) for pair in pairs])
        else:
            metafunc.parametrize("database", list(revisions))

    @classmethod
    def _revisions(cls, config: pytest.Config) -> dict[str, list[str]]:
        """
        Return the revisions of each database that is tested, in order.

        Raises:
            CollectError: There are none, or an attribute names what is not there.
        """
        cache = config.stash.setdefault(_REVISIONS, {})  # asked for each test of the class
        if cls in cache:
            return cache[cls]
        try:
            application = cls.find_databases(config)
            wanted = [Chain(application[name]) for name in cls.databases or ()] or chains(application)
            found = {each.name: [script.revision for script in History(each).scripts] for each in wanted}
        except (MigrationError, LookupError) as error:
            raise pytest.Collector.CollectError(f"{cls.__name__}: {error}") from error
        cls._require_known(found)
        return cache.setdefault(cls, found)

    @classmethod
    def _require_known(cls, found: Mapping[str, Sequence[str]]) -> None:
        revisions = {revision for known in found.values() for revision in known}
        hooks = {
            form for name, known in found.items() for each in known for form in (_word(each), _word(f"{name}_{each}"))
        }
        used = {match[1]: match[0] for match in map(_HOOK.fullmatch, dir(cls)) if match is not None}
        for what, given, known in (
            ("skip", cls.skip, {name for name in dir(cls) if name.startswith("test")}),
            ("irreversible", cls.irreversible, revisions),
            ("needs_database", cls.needs_database, revisions),
            ("lint_after", cls.lint_after, set(found)),
            ("a hook", used, hooks),
        ):
            for each in given:
                if each not in known:
                    there = ", ".join(sorted(known))
                    raise pytest.Collector.CollectError(
                        f"{cls.__name__}: {what} names {each!r}, which is not there; there are {there}"
                    )

    @pytest.fixture(autouse=True)
    def _left_out(self, request: pytest.FixtureRequest) -> None:
        name: str = getattr(request.node, "originalname", request.node.name)
        if name in self.skip:
            pytest.skip(self.skip[name])

    @pytest.fixture(scope="class")
    @classmethod
    def migrated(
        cls, pytestconfig: pytest.Config, database_options: TestOptions, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Migrated]:
        """
        The throwaway databases of the class.
        """
        found = Migrated(cls.find_databases(pytestconfig), database_options, tmp_path_factory.mktemp("migrations_test"))
        yield found
        found.close()

    # --- the tests

    def test_one_head(self, migrated: Migrated, database: str) -> None:
        """
        No two revisions are the newest.
        """
        heads = migrated.history(database).directory.get_heads()
        if len(heads) > 1:
            _fail(several_heads(database, heads))

    def test_up_from_empty(self, migrated: Migrated, database: str) -> None:
        """
        An empty database is brought to the newest revision.
        """
        migrated.newest(database)

    def test_up_down_up(self, migrated: Migrated, database: str, revision: str) -> None:
        """
        A revision runs, is undone without a trace, and runs again.
        """
        reversible = revision not in self.irreversible
        before, after = (self._hook(when, database, revision) for when in ("before", "after"))
        try:
            migrated.walk(database).up_down_up(revision, reversible=reversible)
            if before or after:
                with closing(migrated.another_walk(database)) as walk:
                    walk.with_rows(revision, before, after, reversible=reversible)
        except MigrationTestFailed as error:
            _fail(str(error))

    def test_models_equal_database(self, migrated: Migrated, database: str) -> None:
        """
        The newest revision has the tables of the models.
        """
        if migrated.application[database].settings.metadata is None:
            pytest.skip(f"the database {database!r} names no models")
        newest = migrated.newest(database)
        head = ", ".join(migrated.history(database).directory.get_heads())
        found = [finding.text for finding in check(newest, database)]
        if found:
            _fail(f"the database {database!r} at its newest revision {head!r}: {'; '.join(found)}")

    def test_offline_sql(self, migrated: Migrated, database: str, revision: str) -> None:
        """
        The SQL of a revision can be written without a database.
        """
        if revision in self.needs_database:
            pytest.skip(self.needs_database[revision])
        try:
            migrated.history(database).offline(revision)
        except MigrationTestFailed as error:
            _fail(str(error))

    def test_lint(self, migrated: Migrated, database: str) -> None:
        """
        No revision does what stops the running application or loses data, or it says why it may.
        """
        hazards = lint(migrated.application, database, revisions="all", since=self.lint_after.get(database))
        errors = [
            f"revision {each.revision!r} of the database {database!r}: {each.rule} at {each.path}:{each.line}: "
            f"{each.what}. {each.reason} {each.remedy}"
            for each in hazards
            if each.severity == "error"
        ]
        if errors:
            _fail("\n".join(errors))

    def _hook(self, when: str, database: str, revision: str) -> Any:
        names = [f"{when}_upgrade_{_word(each)}" for each in (f"{database}_{revision}", revision)]
        return next((getattr(self, name) for name in names if hasattr(self, name)), None)


class Migrated:
    """
    The throwaway databases of a class of tests, made as they are needed.

    Args:
        application: The application's databases.
        options: Which hosts are allowed.
        directory: Where files are put.
    """

    def __init__(self, application: Databases, options: TestOptions, directory: Path) -> None:
        self.application = application
        # Where each of many short-lived databases was, nobody wants to read.
        self._given = (msgspec.structs.replace(options, notice=TestOptions().notice), directory)
        self._histories: dict[str, History] = {}
        self._walks: dict[str, Walk] = {}
        self._newest: dict[str, Databases | str] = {}
        self._stack = ExitStack()

    def walk(self, name: str) -> Walk:
        """
        Return the way through the revisions of a database.
        """
        if name not in self._walks:
            self._walks[name] = self.another_walk(name)
            self._stack.callback(self._walks[name].close)
        return self._walks[name]

    def another_walk(self, name: str) -> Walk:
        """
        Return one more, in a database of its own.
        """
        return Walk(self.history(name), partial(throwaway, self.application, name, *self._given))

    def history(self, name: str) -> History:
        """
        Return the revisions of a database.
        """
        if name not in self._histories:
            self._histories[name] = History(Chain(self.application[name]))
        return self._histories[name]

    def newest(self, name: str) -> Databases:
        """
        Return databases of which this one was brought from empty to the newest revision; fail where it cannot be.
        """
        found = self._newest.get(name)
        if found is None:
            databases = self._stack.enter_context(throwaway(self.application, name, *self._given))
            try:
                upgrade(databases, name)
            except MigrationError as error:
                found = in_words(error)
            else:
                found = databases
            self._newest[name] = found
        if isinstance(found, str):
            _fail(f"the database {name!r} was not brought from empty to its newest revision: {found}")
        return found

    def close(self) -> None:
        """
        Drop them.
        """
        self._stack.close()


def _word(text: str) -> str:
    return re.sub(r"\W", "_", text)


def _fail(text: str) -> NoReturn:
    pytest.fail(text, pytrace=False)
