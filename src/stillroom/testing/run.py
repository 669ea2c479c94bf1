"""A run of tests over an application's databases, and the single test in it."""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from . import guard
from .committed import Committed
from .errors import LeakedTransaction, SandboxError, TestingError, UndeclaredDatabase
from .options import Isolation, TestOptions
from .provisioning import provide
from .routing import Router
from .sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self

    from sqlalchemy.engine import URL

    from stillroom import Database, Databases, Settings

    from .leaks import Leak
    from .provisioning import TestDatabase

__all__ = ["BETWEEN", "IsolatedTest", "TestRun"]

BETWEEN = (
    "but no test is running that may use it. With pytest, let the test or fixture ask for `uow`, `session` or "
    "`databases`, or mark the test with @pytest.mark.databases; elsewhere use `with run.isolated():`"
)
"""Why a database is refused outside of tests that asked for it."""


class IsolatedTest:
    """
    One test in a run.

    Attributes:
        isolation: How it is kept from the others.
        databases: The names of those it may use.
        urls: Where they are, by name; `url` is for programs that the test starts.
        others: Where the test databases are that it may not use, by name.
        failed: Whether it failed; to be set by who knows. A clone of a test that failed is kept.
    """

    def __init__(self, isolation: Isolation, databases: Iterable[str]) -> None:
        self.isolation = isolation
        self.databases = tuple(databases)
        self.failed = False
        self.urls: dict[str, URL] = {}
        self.others: dict[str, URL] = {}

    def __repr__(self) -> str:
        return f"<IsolatedTest {self.isolation} on {', '.join(self.databases)}>"

    def url(self, name: str) -> URL:
        """
        Return where a database is during the test, for programs that the test starts.

        Raises:
            UndeclaredDatabase: The test did not declare it.
            SandboxError: Another process cannot see what is in the sandbox.
        """
        if self.isolation == "sandbox":
            raise SandboxError(
                f"no other process can see what this test does in {name!r}: it is in one transaction that is never "
                'committed. Use isolation="committed" or isolation="clone"'
            )
        if name not in self.urls:
            raise UndeclaredDatabase(f"the test declared the databases {', '.join(self.databases)}, and not {name!r}")
        return self.urls[name]

    @property
    def environ(self) -> dict[str, str]:
        """
        The environment for programs that the test starts: this process's, with the URLs of the databases.

        A database that the test did not declare leads to one that does not exist.
        """
        urls = {name: self.url(name) for name in self.databases}
        # The settings of the program have these too, and there they may be those of production.
        urls |= {name: url.set(database=_undeclared(name)) for name, url in self.others.items()}
        rendered = {
            f"STILLROOM_{name.upper()}_URL": url.render_as_string(hide_password=False) for name, url in urls.items()
        }
        return {**os.environ, **rendered}


class TestRun:
    """
    Test databases for an application's databases, made at the start and taken away at the end.

    With unittest, for example::

        def setUpModule():
            global run
            run = unittest.enterModuleContext(TestRun(dbs))

        class Tests(unittest.TestCase):
            def setUp(self):
                self.enterContext(run.isolated())

    The pytest plugin does the same. In a test `dbs` leads to the test databases, whoever uses it, and outside of one
    nowhere.

    Args:
        databases: The application's; configured.
        options: What can be chosen.

    Raises:
        NotATestDatabase: A database is not recognisable as one for tests. Nothing was connected to.
    """

    __test__ = False

    def __init__(self, databases: Databases, options: TestOptions | None = None) -> None:
        self.databases = databases
        self.options = options or TestOptions()
        self.made: Mapping[str, TestDatabase] = {}
        self.current: IsolatedTest | None = None
        self._profile: str | None = None
        self._routers: dict[str, Router] = {}
        self._committed: dict[str, Committed] = {}
        self._layers: list[list[str]] = []
        self._stack = contextlib.ExitStack()

    def __repr__(self) -> str:
        return f"<TestRun on {', '.join(self.made) or 'nothing yet'}>"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.made = stack.enter_context(provide(self.databases, self.options))
            # What the application may hold already, from before the override.
            held = [self.databases[name] for name in self.made]
            stack.callback(self._close)
            self._profile = self.databases.settings.profile
            stack.enter_context(self.databases.override(self._redirected))
            for name, made in self.made.items():
                committed = self._committed[name] = Committed(self.databases[name])
                sandbox = Sandbox(
                    name, timeout=self.options.sandbox_timeout, engine=partial(getattr, self.databases[name], "engine")
                )
                self._routers[name] = Router(name, made.url, sandbox, committed)
            for database in held:
                self._routers[database.name].attach(database)
            stack.callback(self.databases.watch_databases(self._attach))
            self._refuse_all()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _close(self) -> None:
        with contextlib.ExitStack() as stack:  # ends each of them, whatever the others say
            for name, router in self._routers.items():
                stack.callback(self._committed[name].close)
                stack.callback(router.sandbox.close)
                stack.callback(router.detach)

    def _redirected(self, settings: Settings) -> Settings:
        # An application that is made in a test loads its settings without the profile of the run; that alone is no
        # other configuration, for which there must be no open unit of work.
        settings = msgspec.structs.replace(settings, profile=self._profile)
        for name, made in self.made.items():
            if name in settings:
                settings = settings.replace(
                    name, url=made.url, replicas=None, migration_url=None, pooler=None, disposable=True
                )
        return settings

    # --- one test

    @contextlib.contextmanager
    def isolated(
        self, *, isolation: Isolation = "sandbox", databases: Iterable[str] | None = None, label: str = "test"
    ) -> Iterator[IsolatedTest]:
        """
        Keep what is done to the databases in the block from every other test.

        Args:
            isolation: "sandbox": one connection for all, rolled back at the end. "committed": real commits; the tables
                that were touched are cleaned. "clone": databases of its own.
            databases: The names of those that the block may use; None for all.
            label: Names a clone.

        Yields:
            The test.

        Raises:
            LeakedTransaction: At the end: transactions were left open. All is cleaned up nevertheless.
            UndeclaredDatabase: In the block: another database was used.
        """
        names = self._names(databases)
        if self.current is not None:
            raise TestingError(f"a test is running already, so another one cannot begin: {self.current!r}")
        if isolation != "sandbox" and self._layers:
            raise SandboxError(
                f'isolation="{isolation}" was asked for where a data layer is open, whose rows are in a transaction '
                "that is never committed: nobody else could see them, and they hold locks. Put the test where no layer "
                "is open, or the rows into the seeds"
            )
        leaks: list[Leak] = []
        test = IsolatedTest(isolation, names)
        test.others = {name: made.url for name, made in self.made.items() if name not in names}
        with contextlib.ExitStack() as stack:  # ends each of them, whatever the others say
            stack.callback(self._after_test)
            self._refuse_all(f"but the test declared only {', '.join(map(repr, names))}. Declare it as well")
            for name in names:
                self._begin(test, name, label)
                stack.callback(self._end, test, name, leaks)
            self.current = test
            try:
                yield test
            except BaseException:
                test.failed = True
                raise
        if leaks and not test.failed:
            raise _leaked(leaks)

    @contextlib.contextmanager
    def layer(self, databases: Iterable[str] | None = None) -> Iterator[None]:
        """
        Put rows below all tests of the block (a module's, a session's): each sees them, and they are gone at the end.

        The rows are in the transaction of the sandbox, so tests in the block are in the sandbox too. In the block
        itself the databases may be used.

        Args:
            databases: The names of those that get rows; None for all.
        """
        if self.current is not None:
            raise TestingError(f"a data layer goes below tests, and one is running: {self.current!r}")
        names = self._names(databases)
        leaks: list[Leak] = []
        with contextlib.ExitStack() as stack:
            self._layers.append(names)
            stack.callback(self._after_layer, names)
            for name in names:
                self._routers[name].sandbox.begin()
                stack.callback(self._end_sandbox, name, leaks)
                self._routers[name].lead("sandbox")
            yield
        if leaks:
            raise _leaked(leaks)

    def _names(self, databases: Iterable[str] | None) -> list[str]:
        names = list(self.made) if databases is None else list(databases)
        for name in names:
            if name not in self.made:
                known = ", ".join(map(repr, self.made))
                raise UndeclaredDatabase(f"no test database is named {name!r}; there are {known}")
        return names

    def _begin(self, test: IsolatedTest, name: str, label: str) -> None:
        router = self._routers[name]
        test.urls[name] = router.url
        if test.isolation == "sandbox":
            router.sandbox.begin()
        elif test.isolation == "committed":
            self._committed[name].begin()
        else:
            test.urls[name] = self.made[name].clone(label)
        router.lead(test.isolation, url=test.urls[name])

    def _end(self, test: IsolatedTest, name: str, leaks: list[Leak]) -> None:
        self._routers[name].lead("nowhere", refusal=BETWEEN)
        if test.isolation == "sandbox":
            self._end_sandbox(name, leaks)
        elif test.isolation == "committed":
            self._end_committed(name, leaks)
        elif test.failed:
            self.options.notice(f"{name}: kept for you to look at: {test.urls[name]!r}")
        else:
            self.made[name].drop_clone(test.urls[name])

    def _after_test(self) -> None:
        self.current = None
        # The totals of lists that the repositories remember. Who has not used any need not load them.
        if (totals := sys.modules.get("stillroom.repository.paging.totals")) is not None:
            totals.remembered.forget()
        self._refuse_all()
        for name in {name for names in self._layers for name in names}:
            self._routers[name].lead("sandbox")

    def _end_sandbox(self, name: str, leaks: list[Leak]) -> None:
        sandbox = self._routers[name].sandbox
        leaks += sandbox.end()
        if sandbox.take_spoiled():
            self.options.notice(f"{name}: made anew, for a test in the sandbox has committed")
            self._remake(name)

    def _end_committed(self, name: str, leaks: list[Leak]) -> None:
        try:
            leaks += self._committed[name].end()
        except TestingError:  # the test changed more than rows, and is told so; the next ones need not suffer
            self._remake(name)
            raise

    def _remake(self, name: str) -> None:
        self._committed[name].forget()
        self._routers[name].give_up()
        self.made[name].remake()

    def _after_layer(self, names: list[str]) -> None:
        self._layers.remove(names)
        self._after_test()

    # --- engines

    def _attach(self, database: Database) -> None:
        router = self._routers.get(database.name)
        if router is None or database.settings.url != router.url:
            guard.check({database.name: database.settings}, self.options)
        else:
            router.attach(database)

    def _refuse_all(self, why: str = BETWEEN) -> None:
        for router in self._routers.values():
            router.lead("nowhere", refusal=why)


def _undeclared(name: str) -> str:
    """
    Return the name of a database that does not exist, whatever the server.
    """
    return f"/the/test/did/not/declare/{name}"


def _leaked(leaks: list[Leak]) -> LeakedTransaction:
    listed = "\n".join(f"- {leak}" for leak in leaks)
    return LeakedTransaction(
        f"{len(leaks)} transaction(s) were left open at the end of the test, and were rolled back:\n{listed}\n"
        "End them: leave their `with` block, commit, roll back, or close",
        [str(leak) for leak in leaks],
    )
