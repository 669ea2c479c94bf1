"""
The databases of the applications under test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit_of_work.shop import idle, made

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillroom import Databases


@pytest.fixture
def urls(sqlite_database: str) -> dict[str, str]:
    """
    Where the databases are, by name.
    """
    return {"main": sqlite_database}


@pytest.fixture
def dbs(urls: dict[str, str]) -> Iterator[Databases]:
    """
    The databases, with the table of items; at the end nothing may be left open.
    """
    with made(urls) as databases:
        yield databases
        assert idle(databases)
        assert not databases.declared.open_units
