"""
The databases of the small application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stillroom import Databases

from . import shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def dbs(tmp_path: Path) -> Iterator[Databases]:
    """
    The databases "main" and "audit", with rows.
    """
    urls = {name: {"url": f"sqlite:///{tmp_path / name}.db"} for name in ("main", "audit")}
    with Databases({"default": "main", "databases": urls}) as databases:
        shop.fill(databases)
        yield databases
