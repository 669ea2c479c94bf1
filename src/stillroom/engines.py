"""From settings to engines: pure functions, no connection is made."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import create_engine

from . import connections, pool
from .forking import watch_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL, Engine

    from .backends import Backend, Role
    from .settings import DatabaseSettings


def json_text(value: object) -> str:
    """
    Serialize the value of a JSON column with msgspec, which also takes dates, UUIDs, decimals and data classes.
    """
    return msgspec.json.encode(value).decode()


def engine_keywords(
    settings: DatabaseSettings, backend: Backend, url: URL, role: Role, *, is_async: bool
) -> dict[str, Any]:
    """
    Return the keywords for `create_engine`: ours, then the backend's, then the user's.
    """
    keywords: dict[str, Any] = {
        "json_serializer": json_text,
        "json_deserializer": msgspec.json.decode,
        # Our own reset asks the driver first: a ROLLBACK that undoes nothing costs a round trip on some drivers.
        "pool_reset_on_return": None,
        "pool_size": settings.pool_size,
        "max_overflow": settings.max_overflow,
        "pool_timeout": settings.pool_timeout,
        "pool_use_lifo": True,  # the warm connections stay warm, the others grow old and are let go
        "echo": settings.echo,
    }
    if settings.pool_recycle:
        keywords["pool_recycle"] = settings.pool_recycle
    keywords |= backend.engine_arguments(settings, url, role, is_async=is_async)
    keywords["connect_args"] = keywords.get("connect_args", {}) | dict(settings.connect_args)
    return keywords | dict(settings.engine)


def make_engine(settings: DatabaseSettings, backend: Backend, url: URL, name: str, role: Role) -> Engine:
    """
    Make the synchronous engine for one role of a database.

    Args:
        settings: The settings of the database.
        backend: Its backend.
        url: Where to connect to: the primary server or a replica.
        name: The name of the database.
        role: "writer", or "reader" for an engine that is read only.

    Raises:
        MissingDriver: No driver for the dialect is installed.
    """
    url = backend.driver_url(url, is_async=False)
    keywords = engine_keywords(settings, backend, url, role, is_async=False)
    keywords.setdefault("poolclass", pool.FairQueuePool)
    engine = create_engine(url, **_fitting(keywords))
    equip(engine, settings, backend, name, role)
    return engine


def equip(
    engine: Engine,
    settings: DatabaseSettings,
    backend: Backend,
    name: str,
    role: Role,
    who: Callable[[], Any] = get_ident,
) -> None:
    """
    Put the guards, the backend's listeners and the fair queue on a new engine.
    """
    connections.install(engine, name, settings, backend, read_only=role == "reader", who=who)
    backend.install(engine, settings, role)
    pool.install(engine)
    watch_engine(engine, backend)


def _fitting(keywords: dict[str, Any]) -> dict[str, Any]:
    """
    Leave out the pool's keywords where the user chose a pool that does not take them.
    """
    from sqlalchemy.pool import QueuePool

    if issubclass(keywords["poolclass"], QueuePool):
        return keywords
    return {key: value for key, value in keywords.items() if key not in _QUEUE_KEYWORDS}


_QUEUE_KEYWORDS = {"pool_size", "max_overflow", "pool_timeout", "pool_use_lifo"}
