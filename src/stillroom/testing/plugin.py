"""The pytest plugin: test databases, isolation and servers as fixtures; none is used without being asked for."""

from __future__ import annotations

import sys
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import pytest

from . import async_fixtures, queries
from .servers import fixtures

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from sqlalchemy.orm import Session

    from stillroom import Databases, UnitOfWork

    from .options import Schema, Seeds, TestOptions
    from .run import IsolatedTest, TestRun
    from .unasked import Unasked

    Reporting = Generator[None, pytest.TestReport, pytest.TestReport]

MARKER = "databases"
ISOLATION = "isolated_test"
ASKING = frozenset({ISOLATION, "module_databases", "session_databases"})
"""The fixtures whose use asks for isolation; a test on a data layer would otherwise write to the layer."""

_FAILED = pytest.StashKey[bool]()
_NOTICES = pytest.StashKey[list[str]]()
_UNASKED: pytest.StashKey[Unasked | None] = pytest.StashKey()
"""What refuses the databases before the run of tests has begun; None from then on, for the run does so by itself."""

_MARKER_HELP = (
    'databases(*names, isolation="sandbox"): the databases that the test uses, and how it is kept from others: '
    '"sandbox" (all is rolled back), "committed" (real commits, cleaned afterwards) or "clone" (databases of its own)'
)
_NO_DATABASES = (
    "stillroom does not know the application's databases: set `stillroom_databases` in pytest's configuration to where "
    'they are, such as stillroom_databases = "shop.db:dbs", or override the fixture `application_databases`'
)


# --- options


def pytest_addoption(parser: pytest.Parser) -> None:
    """
    Add the options of the command line and of the configuration file.
    """
    group = parser.getgroup("stillroom", "test databases (stillroom)")
    group.addoption("--db-keep", action="store_true", help="keep the test databases, and use them again")
    group.addoption("--db-fresh", action="store_true", help="make the templates of the test databases anew")
    group.addoption("--db-gc", action="store_true", help="first remove templates and databases of earlier runs")
    group.addoption(
        "--db-allow-host", action="append", default=[], metavar="HOST", help="allow test databases on this host"
    )
    group.addoption(
        "--db-allow-database",
        action="append",
        default=[],
        metavar="NAME",
        help="use the database of exactly this name, although it does not look like one for tests",
    )
    parser.addini("stillroom_databases", 'where the application\'s Databases are, such as "shop.db:dbs"', default="")
    parser.addini("stillroom_profile", "the profile for databases that are not configured yet", default="test")
    parser.addini(
        "stillroom_strict", "a test that names no databases may use the default one only", type="bool", default=False
    )


def pytest_configure(config: pytest.Config) -> None:
    """
    Describe the marker, and add the fixtures of asyncio that fit whoever runs asynchronous tests.
    """
    config.addinivalue_line("markers", _MARKER_HELP)
    config.stash[_NOTICES] = []
    config.pluginmanager.register(fixtures, "stillroom-servers")
    config.pluginmanager.register(
        async_fixtures.fixtures_for(asyncio_plugin=config.pluginmanager.hasplugin("asyncio")), "stillroom-async"
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """
    Hand what is to be said over to the process that says it, from a worker of pytest-xdist.
    """
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["stillroom_notices"] = session.config.stash.get(_NOTICES, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """
    Take over what a worker of pytest-xdist has to say.
    """
    said = node.config.stash.get(_NOTICES, [])
    said += [notice for notice in getattr(node, "workeroutput", {}).get("stillroom_notices", []) if notice not in said]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """
    Say what the test databases were, and what was kept.
    """
    notices = config.stash.get(_NOTICES, [])
    if notices:
        terminalreporter.section("test databases (stillroom)")
        for notice in notices:
            terminalreporter.line(notice)


# --- the order of things


def pytest_itemcollected(item: pytest.Item) -> None:
    """
    Let the isolation of a test begin before every other fixture of the test alone, and so end after them.

    A fixture that does not ask for `databases` may use them all the same, such as one that makes the application.
    """
    names: list[str] | None = getattr(item, "fixturenames", None)
    if names is None:
        return
    if not fixtures.RESTORED.isdisjoint(names):
        _begin_with(item, names, fixtures.RESTORER)
    if item.get_closest_marker(MARKER) is not None or not ASKING.isdisjoint(names):
        _begin_with(item, names, ISOLATION)


def _begin_with(item: pytest.Item, names: list[str], first: str) -> None:
    wider = [name for name in names if name != first and _is_wider(item, name)]
    names[:] = [*wider, first, *(name for name in names if name != first and name not in wider)]


def _is_wider(item: pytest.Item, name: str) -> bool:
    known: Any = item
    found = known._fixtureinfo.name2fixturedefs.get(name)  # noqa: SLF001  # pytest tells scopes nowhere else
    return bool(found) and found[-1].scope != "function"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Put tests that commit before those of the same module, or session, that stand on a data layer.

    A layer is open from its first use to the end of its module or session, and nobody can commit beside it.
    """
    if any("session_databases" in _fixtures(item) for item in items):
        items.sort(key=_is_sandboxed)
        return
    layered = {_module(item) for item in items if "module_databases" in _fixtures(item)}
    if layered:
        first = {module: number for number, module in reversed(list(enumerate(map(_module, items))))}
        items.sort(key=lambda item: (first[_module(item)], _module(item) in layered and _is_sandboxed(item)))


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return getattr(item, "fixturenames", ())


def _module(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _is_sandboxed(item: pytest.Item) -> bool:
    marker = item.get_closest_marker(MARKER)
    return marker is None or marker.kwargs.get("isolation", "sandbox") == "sandbox"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """
    Refuse the application's databases from the moment when they are imported to that when a test asks for them.
    """
    where = item.config.getini("stillroom_databases")
    if where and _UNASKED not in item.config.stash and where.partition(":")[0] in sys.modules:
        from .unasked import Unasked

        item.config.stash[_UNASKED] = Unasked(resolve_name(where))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Reporting:
    """
    Note whether the test failed: a clone of one that did is kept.
    """
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


# --- the run


@pytest.fixture(scope="session")
def application_databases(pytestconfig: pytest.Config) -> Databases:
    """
    The application's Databases, configured; to be overridden where `stillroom_databases` does not say which they are.
    """
    return find_databases(pytestconfig)


def find_databases(config: pytest.Config) -> Databases:
    """
    Return the application's Databases, as `stillroom_databases` names them; configured, if they were not.
    """
    from stillroom import Settings, SettingsError

    where = config.getini("stillroom_databases")
    if not where:
        raise pytest.UsageError(_NO_DATABASES)
    databases: Databases = resolve_name(where)
    if not databases.is_configured:
        profile = config.getini("stillroom_profile")
        try:
            databases.configure(Settings.load(profile=profile))
        except SettingsError as error:
            if error.path != f"profiles.{profile}":
                raise
            databases.configure(Settings.load())
    return databases


@pytest.fixture(scope="session")
def database_seeds() -> Mapping[str, Seeds]:
    """
    Functions that put rows into the test databases, by database; to be overridden. Each gets a session.
    """
    return {}


@pytest.fixture(scope="session")
def database_schema() -> Mapping[str, Schema]:
    """
    Where the tables come from, by database: "migrations", "create_all" or "none"; to be overridden.
    """
    return {}


@pytest.fixture(scope="session")
def database_options(
    pytestconfig: pytest.Config, database_seeds: Mapping[str, Seeds], database_schema: Mapping[str, Schema]
) -> TestOptions:
    """
    The `TestOptions` of the run; to be overridden.
    """
    from .options import TestOptions

    worker: Mapping[str, Any] = getattr(pytestconfig, "workerinput", {})
    return TestOptions(
        worker=worker.get("workerid", ""),
        run=worker.get("testrunuid", ""),
        keep=pytestconfig.getoption("db_keep"),
        fresh=pytestconfig.getoption("db_fresh"),
        allowed_hosts=tuple(pytestconfig.getoption("db_allow_host")),
        allowed_databases=tuple(pytestconfig.getoption("db_allow_database")),
        seeds=database_seeds,
        schema=database_schema,
        notice=pytestconfig.stash[_NOTICES].append,
    )


@pytest.fixture(scope="session")
def test_run(
    application_databases: Databases, database_options: TestOptions, pytestconfig: pytest.Config
) -> Iterator[TestRun]:
    """
    The run: the test databases, made at its first use and taken away at the end.
    """
    from .provisioning import collect_garbage
    from .run import TestRun

    if pytestconfig.getoption("db_gc"):
        for removed in collect_garbage(application_databases, database_options):
            database_options.notice(f"removed {removed}")
    if (unasked := pytestconfig.stash.get(_UNASKED, None)) is not None:
        unasked.refuses = False
    pytestconfig.stash[_UNASKED] = None
    with TestRun(application_databases, database_options) as run:
        yield run


# --- one test


@pytest.fixture
def isolated_test(request: pytest.FixtureRequest, test_run: TestRun) -> Iterator[IsolatedTest]:
    """
    The test as the run sees it: its databases, their URLs and the environment for programs that it starts.
    """
    marker = request.node.get_closest_marker(MARKER)
    names = marker.args if marker is not None else ()
    options = dict(marker.kwargs) if marker is not None else {}
    isolation = options.pop("isolation", "sandbox")
    if options or isolation not in ("sandbox", "committed", "clone"):
        wrong = ", ".join([*options, *([] if options else [f"isolation={isolation!r}"])])
        raise pytest.UsageError(f"@pytest.mark.databases does not know {wrong}; it is written {_MARKER_HELP}")
    if not names and request.config.getini("stillroom_strict"):
        names = (test_run.databases.declared.default,)
    with test_run.isolated(isolation=isolation, databases=names or None, label=request.node.name) as test:
        yield test
        test.failed = request.node.stash.get(_FAILED, False)


@pytest.fixture
def databases(test_run: TestRun, isolated_test: IsolatedTest) -> Databases:
    """
    The application's Databases, on the test databases, and isolated as the test's marker says.
    """
    return test_run.databases


@pytest.fixture
def uow(databases: Databases) -> Iterator[UnitOfWork]:
    """
    The unit of work that is current in the test: committed by `uow.commit()` only, and rolled back at the end.
    """
    with databases.unit_of_work(commit="manual") as unit:
        yield unit


@pytest.fixture
def session(uow: UnitOfWork) -> Session:
    """
    The session of `uow` on the default database.
    """
    return uow.session()


@pytest.fixture(scope="module")
def module_databases(test_run: TestRun) -> Iterator[Databases]:
    """
    The Databases for a fixture of the module's scope: what it writes is seen by the module's tests, and then undone.
    """
    with test_run.layer():
        yield test_run.databases


@pytest.fixture(scope="session")
def session_databases(test_run: TestRun) -> Iterator[Databases]:
    """
    Same as `module_databases`, but for all tests of the run.
    """
    with test_run.layer():
        yield test_run.databases


# --- seeing queries


@pytest.fixture
def assert_queries(databases: Databases) -> Callable[..., Any]:
    """
    The function of the same name in `stillroom.testing`, for the application's databases.
    """
    return partial(queries.assert_queries, databases)


@pytest.fixture
def assert_max_queries(databases: Databases) -> Callable[..., Any]:
    """
    The function of the same name in `stillroom.testing`, for the application's databases.
    """
    return partial(queries.assert_max_queries, databases)


@pytest.fixture
def assert_no_repeats(databases: Databases, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """
    The function of the same name in `stillroom.testing`, for the application's databases.
    """
    return partial(queries.assert_no_repeats, databases, name=request.node.nodeid)


@pytest.fixture
def count_queries(databases: Databases) -> Callable[..., Any]:
    """
    The function of the same name in `stillroom.testing`, for the application's databases.
    """
    return partial(queries.count_queries, databases)
