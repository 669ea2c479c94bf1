"""
One naming convention for indexes and constraints, so that a migration can drop what another one made.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NAMING_CONVENTION"]

NAMING_CONVENTION: Mapping[str, str] = MappingProxyType(
    {
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""
The convention of every base. All columns are part of a name (``column_0_N_name``): with the first alone, two
constraints that begin with the same column would get one name. A CHECK constraint needs a name of its own, which
completes ``ck_<table>_``; SQLAlchemy says so where it is missing. Names beyond the server's limit (63 bytes on
PostgreSQL, 64 characters on MariaDB) are shortened by SQLAlchemy to a prefix and a hash, the same in every run.
"""
