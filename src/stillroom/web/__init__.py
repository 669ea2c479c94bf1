"""What the integrations of web frameworks share: when a request is committed, and how it ends in time."""

from __future__ import annotations

from .asgi import KEY, RequestUnits, UnitOfWorkMiddleware
from .environ import ENVIRON_KEY, open_unit, shares_unit, unit_of
from .policy import CommitPolicy

__all__ = [
    "ENVIRON_KEY",
    "KEY",
    "CommitPolicy",
    "RequestUnits",
    "UnitOfWorkMiddleware",
    "open_unit",
    "shares_unit",
    "unit_of",
]
