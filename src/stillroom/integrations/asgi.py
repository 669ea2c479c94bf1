"""ASGI (Starlette, Litestar, Quart, any): a unit of work for each request, ended before the response starts."""

from __future__ import annotations

from stillroom.web import UnitOfWorkMiddleware

__all__ = ["UnitOfWorkMiddleware"]
