"""
Fixtures for all tests: servers that are there or throwaway, and databases that live as long as one test.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from stillroom.testing.servers import wait_until
from stillroom.testing.servers.fixtures import needed
from tests.support import servers
from tests.support.spares import Spares
from tests.support.standing import Standing, options_for

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    Reporting = Generator[None, pytest.TestReport, pytest.TestReport]

BACKENDS = ("sqlite", "postgresql", "mariadb")

FAILED = pytest.StashKey[bool]()

# A closed connection disappears from the server's list a moment later; on a busy machine after some seconds.
CLOSING = 10.0

# PyMySQL reads all certificates of the machine for each connection, also to a server without TLS: 40 ms of computing.
os.environ["SSL_CERT_FILE"] = os.devnull


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """
    Pass over the files without such a test where only those that run alone are asked for: to import all takes longer.
    """
    if config.option.markexpr != "alone" or collection_path.suffix != ".py":
        return None
    return None if "mark.alone" in collection_path.read_text(encoding="utf-8") else True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Reporting:
    """
    Note for the fixtures whether the test failed.
    """
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture(autouse=True)
def _settings_of_the_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Hide the settings of the machine from the tests.
    """
    for name in list(os.environ):
        if name == "DATABASE_URL" or (name.startswith("STILLROOM_") and not name.startswith("STILLROOM_TEST_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgresql_url() -> str:
    """
    The administrator's URL of a PostgreSQL server, without a driver.
    """
    return needed("postgresql", servers.postgresql_url)


@pytest.fixture(scope="session")
def mariadb_url() -> str:
    """
    The administrator's URL of a MariaDB server, without a driver.
    """
    return needed("mariadb", servers.mariadb_url)


@pytest.fixture(scope="session")
def redis_url() -> str:
    """
    The URL of a Redis server.
    """
    return needed("redis", servers.redis_url)


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """
    The URL of a RabbitMQ server.
    """
    return needed("rabbitmq", servers.rabbitmq_url)


@pytest.fixture(scope="session")
def standing(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """
    Test databases of the toolkit that stand for the whole session, for tests that it isolates.
    """
    made = Standing(options_for(pytestconfig), tmp_path_factory.mktemp("standing"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def spares(postgresql_url: str) -> Iterator[Spares]:
    """
    Empty PostgreSQL databases, each for one test after the other.
    """
    made = Spares(postgresql_url)
    yield made
    made.close()


@pytest.fixture
def sqlite_database(tmp_path: Path) -> str:
    """
    The URL of an SQLite file that does not exist yet.
    """
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def postgresql_database(spares: Spares, request: pytest.FixtureRequest) -> Iterator[str]:
    """
    The URL, without a driver, of an empty PostgreSQL database for one test.
    """
    with spares.database() as url:
        yield url
        check_connections(url, request)


@pytest.fixture
def mariadb_database(mariadb_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """
    The URL, without a driver, of an empty MariaDB database for one test.
    """
    with servers.mariadb_database(mariadb_url) as url:
        yield url
        check_connections(url, request)


@pytest.fixture(params=BACKENDS)
def any_database(request: pytest.FixtureRequest) -> str:
    """
    The URL of an empty database for one test, on each backend in turn.
    """
    return str(request.getfixturevalue(f"{request.param}_database"))


def check_connections(url: str, request: pytest.FixtureRequest) -> None:
    """
    Fail if a test that passed left connections to its database open.
    """
    if request.node.stash.get(FAILED, False) or request.node.get_closest_marker("leaves_connections"):
        return
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: servers.open_connections(url) == 0, "connections are closed", timeout=CLOSING)
    left = servers.open_connections(url)
    if left:
        pytest.fail(
            f"the test left {left} connection(s) open; close them, or mark it leaves_connections with a reason",
            pytrace=False,
        )
