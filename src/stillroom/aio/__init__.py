"""The same rules for asyncio: a thin facade over the synchronous core, driven inside SQLAlchemy's greenlets."""

from ..errors import MissingDriver

try:
    from .unit_of_work import AsyncUnitOfWork
except ImportError as error:
    if error.name == "greenlet" or "greenlet" in str(error):
        raise MissingDriver("asyncio with SQLAlchemy needs greenlet", extra="async") from error
    raise

__all__ = ["AsyncUnitOfWork"]
