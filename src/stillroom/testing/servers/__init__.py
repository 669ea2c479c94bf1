"""Throwaway database servers, and a proxy that gets in the way: for tests of lag, failover and lost connections."""

from __future__ import annotations

from ..errors import ServerUnavailable
from .mariadb import MariaDBServer, mariadb_server
from .pair import PostgresPair, Side, pg_pair
from .pooler import PgBouncer, pgbouncer
from .postgresql import PostgresServer, StopMode, pg_server
from .processes import PATIENCE, ServerProcess, free_port, reachable, wait_until
from .proxying import Action, Proxy, Trigger, proxy

__all__ = [
    "PATIENCE",
    "Action",
    "MariaDBServer",
    "PgBouncer",
    "PostgresPair",
    "PostgresServer",
    "Proxy",
    "ServerProcess",
    "ServerUnavailable",
    "Side",
    "StopMode",
    "Trigger",
    "free_port",
    "mariadb_server",
    "pg_pair",
    "pg_server",
    "pgbouncer",
    "proxy",
    "reachable",
    "wait_until",
]
