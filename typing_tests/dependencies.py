"""
The types that checkers infer for the dependencies of FastAPI.
"""

from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from stillroom import AsyncUnitOfWork, UnitOfWork
from stillroom.integrations.fastapi import AsyncUowDep, UowDep


async def awaits(uow: AsyncUowDep) -> None:
    assert_type(uow, AsyncUnitOfWork)
    assert_type(uow.main, AsyncSession)


def blocks(uow: UowDep) -> None:
    assert_type(uow, UnitOfWork)
    assert_type(uow.main, Session)
