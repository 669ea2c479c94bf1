"""From settings to engines for asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..engines import engine_keywords, equip
from .pool import AsyncFairQueuePool, end_aside

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from ..backends import Backend, Begin, Role
    from ..settings import DatabaseSettings


def make_async_engine(settings: DatabaseSettings, backend: Backend, url: URL, name: str, role: Role) -> AsyncEngine:
    """
    Same as `stillroom.engines.make_engine`, but for asyncio.
    """
    url = backend.driver_url(url, is_async=True)
    keywords = engine_keywords(settings, backend, url, role, is_async=True)
    keywords.setdefault("poolclass", AsyncFairQueuePool)
    engine = create_async_engine(url, **keywords)
    equip(engine.sync_engine, settings, backend, name, role, who=running_task)
    end_aside(engine.sync_engine)
    return engine


def async_variant(engine: AsyncEngine, backend: Backend, begin: Begin) -> AsyncEngine:
    """
    Return an engine on the same pool whose transactions begin as `begin` says.
    """
    return AsyncEngine(backend.variant(engine.sync_engine, begin))


def running_task() -> Any:
    """
    Return the asyncio task that is running; None outside of one.
    """
    return asyncio.current_task()
