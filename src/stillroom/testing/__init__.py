"""
What tests of applications are made of: test databases, isolation, assertions on queries, factories and servers.

With pytest nothing needs to be imported: the plugin has fixtures. All but the classes of tests works without pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    LeakedTransaction,
    NotATestDatabase,
    RepeatedQueries,
    SandboxError,
    SandboxTimeout,
    ServerUnavailable,
    TestingError,
    TooManyQueries,
    UndeclaredDatabase,
)
from .options import Isolation, Schema, Seeds, TestOptions

if TYPE_CHECKING:
    from .application import ApplicationTests
    from .clients import asgi_client, wsgi_client
    from .contract import IntegrationContract
    from .factories import factory_boy_base, polyfactory_base
    from .migration_tests import MigrationTests
    from .provisioning import TestDatabase, collect_garbage, mark_environment
    from .queries import Counted, assert_max_queries, assert_no_repeats, assert_queries, count_queries
    from .run import IsolatedTest, TestRun
    from .servers import mariadb_server, pg_pair, pg_server, pgbouncer, proxy

__all__ = [
    "ApplicationTests",
    "Counted",
    "IntegrationContract",
    "IsolatedTest",
    "Isolation",
    "LeakedTransaction",
    "MigrationTests",
    "NotATestDatabase",
    "RepeatedQueries",
    "SandboxError",
    "SandboxTimeout",
    "Schema",
    "Seeds",
    "ServerUnavailable",
    "TestDatabase",
    "TestOptions",
    "TestRun",
    "TestingError",
    "TooManyQueries",
    "UndeclaredDatabase",
    "asgi_client",
    "assert_max_queries",
    "assert_no_repeats",
    "assert_queries",
    "collect_garbage",
    "count_queries",
    "factory_boy_base",
    "mariadb_server",
    "mark_environment",
    "pg_pair",
    "pg_server",
    "pgbouncer",
    "polyfactory_base",
    "proxy",
    "wsgi_client",
]

# Imported on demand: some need pytest or another library.
_ON_DEMAND = {
    "ApplicationTests": ".application",
    "Counted": ".queries",
    "IntegrationContract": ".contract",
    "IsolatedTest": ".run",
    "MigrationTests": ".migration_tests",
    "TestDatabase": ".provisioning",
    "TestRun": ".run",
    "asgi_client": ".clients",
    "assert_max_queries": ".queries",
    "assert_no_repeats": ".queries",
    "assert_queries": ".queries",
    "collect_garbage": ".provisioning",
    "count_queries": ".queries",
    "factory_boy_base": ".factories",
    "mariadb_server": ".servers",
    "mark_environment": ".provisioning",
    "pg_pair": ".servers",
    "pg_server": ".servers",
    "pgbouncer": ".servers",
    "polyfactory_base": ".factories",
    "proxy": ".servers",
    "wsgi_client": ".clients",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ON_DEMAND[name], __name__), name)
