"""
The servers as fixtures: what is missing is a skip with its reason, and a test leaves the servers as it found them.
"""

from __future__ import annotations

import pytest

from stillroom.testing.errors import ServerUnavailable
from stillroom.testing.servers import fixtures

PLAIN = [f"-pno:{plugin}" for plugin in ("cacheprovider", "xdist", "asyncio", "randomly")]


def nothing() -> str:
    raise ServerUnavailable("nobody is at home")


def test_a_server_that_is_missing_is_a_skip_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_TEST_REQUIRE", "redis")
    with pytest.raises(pytest.skip.Exception, match="nobody is at home"):
        fixtures.needed("mariadb", nothing)


def test_a_server_that_is_required_and_missing_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_TEST_REQUIRE", "redis, mariadb")
    with pytest.raises(pytest.fail.Exception, match="demands mariadb: nobody is at home"):
        fixtures.needed("mariadb", nothing)


CONFTEST = """
from stillroom.testing.servers import fixtures

for name in fixtures.__all__:
    if name.endswith("_fixture"):
        globals()[name] = getattr(fixtures, name)
"""

BREAKING = """
def test_breaks(pg_server):
    pg_server.kill()

def test_finds_it_running(pg_server, proxy):
    assert pg_server.sql("SELECT 1") == "1"
    first, second = proxy(pg_server.url), proxy(pg_server.url)
    assert first.port != second.port
    globals()["left"] = first

def test_proxies_end_with_their_test():
    assert "not running" in str(raised(left.cut))

def raised(call):
    try:
        call()
    except RuntimeError as error:
        return error
"""


def test_a_test_may_break_what_the_next_one_uses(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(BREAKING)
    result = pytester.runpytest_inprocess(*PLAIN)
    result.assert_outcomes(passed=3)


def test_each_missing_server_is_a_skip_of_its_own_tests(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object) -> str:
        raise ServerUnavailable("it is not installed")

    monkeypatch.delenv("STILLROOM_TEST_REQUIRE", raising=False)
    for module, name in [("postgresql", "pg_server"), ("pair", "pg_pair"), ("mariadb", "mariadb_server")]:
        monkeypatch.setattr(f"stillroom.testing.servers.{module}.{name}", missing)
    names = ("pg_server", "pg_pair", "mariadb_server", "pgbouncer")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("\n".join(f"def test_{name}({name}): pass" for name in names))
    result = pytester.runpytest_inprocess("-rs", *PLAIN)
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(["*it is not installed*"])


OWN = """
import pytest

@pytest.fixture
def pg_server():
    return "another server"

def test_has_its_own(pg_server):
    assert pg_server == "another server"
"""


def test_a_fixture_of_the_same_name_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(OWN)
    result = pytester.runpytest_inprocess(*PLAIN)
    result.assert_outcomes(passed=1)
