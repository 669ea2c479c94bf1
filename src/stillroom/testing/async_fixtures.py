"""Fixtures for asynchronous tests, in the form that the plugin that runs such tests understands."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from stillroom import Databases
    from stillroom.aio import AsyncUnitOfWork

__all__ = ["fixtures_for"]


def fixtures_for(*, asyncio_plugin: bool) -> Any:
    """
    Return a pytest plugin with the fixtures.

    Args:
        asyncio_plugin: pytest-asyncio runs the tests, which wants its own decorator; anyio takes pytest's.
    """
    fixture: Callable[..., Any] = pytest.fixture
    if asyncio_plugin:
        from pytest_asyncio import fixture

    async def async_uow(databases: Databases) -> AsyncIterator[AsyncUnitOfWork]:
        """
        Same as `uow`, but for asyncio.
        """
        async with databases.async_unit_of_work(commit="manual") as unit:
            yield unit

    async def async_session(async_uow: AsyncUnitOfWork) -> AsyncSession:
        """
        Same as `session`, but for asyncio.
        """
        return async_uow.session()

    plugin = ModuleType("stillroom_async_fixtures")
    vars(plugin).update(async_uow=fixture(async_uow), async_session=fixture(async_session))
    return plugin
