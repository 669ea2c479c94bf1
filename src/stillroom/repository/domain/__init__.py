"""Plain objects in and out, so that a domain model knows nothing of SQLAlchemy."""

from __future__ import annotations

from .converter import Converter

__all__ = ["Converter"]
