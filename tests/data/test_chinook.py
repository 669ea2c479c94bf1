"""
The whole Chinook shop is loaded: once, twice, by four processes; or not at all.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from stillroom.data import RowRefused, load
from tests.data import shop
from tests.data.processes import at_once

if TYPE_CHECKING:
    from pathlib import Path

    from stillroom import Databases

LOADING = """
from stillroom.data import load
from tests.data import shop
with shop.databases(sys.argv[1]) as dbs:
    print(sum(each.inserted for each in load(dbs, shop.CHINOOK)))
"""


def data() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(shop.CHINOOK.read_text(encoding="utf-8"))
    return found


def test_loading_twice_is_loading_once(sqlite: Databases) -> None:
    first = load(sqlite, shop.CHINOOK)
    rows = {name: len(rows) for name, rows in data().items() if name in shop.Base.metadata.tables}
    assert {each.model: each.inserted for each in first} == rows
    before = shop.contents(sqlite)
    assert {name: len(each) for name, each in before.items()} == rows

    second = load(sqlite, shop.CHINOOK)
    assert {each.model: each.unchanged for each in second} == rows
    assert not any(each.inserted or each.updated for each in second)
    assert shop.contents(sqlite) == before


def test_four_processes_at_once_load_it_once(dbs: Databases, any_database: str) -> None:
    inserted = sorted(map(int, at_once(4, LOADING, any_database)))
    before = shop.contents(dbs)
    found = load(dbs, shop.CHINOOK)
    total = sum(each.rows for each in found)
    assert inserted == [0, 0, 0, total]
    assert sum(each.unchanged for each in found) == total
    assert sum(map(len, before.values())) == total
    assert shop.contents(dbs) == before


def broken(tmp_path: Path, name: str, number: int, **values: Any) -> Path:
    """
    Write the shop with a broken row.
    """
    content = data()
    content[name][number - 1].update(values)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def middle() -> int:
    """
    The number of a track in the middle: 2,000 of 3,503 where the whole shop is there.
    """
    return min(2000, len(data()["Track"]) // 2)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("Milliseconds", "long", "'long' does not fit: it takes int"),
        ("AlbumId", 99999, "99999 is refused"),
        ("Name", None, "it takes str, and not NULL"),
    ],
)
def test_a_broken_row_leaves_nothing_and_is_named(
    dbs: Databases, tmp_path: Path, column: str, value: Any, words: str
) -> None:
    path = broken(tmp_path, "Track", middle(), **{column: value})
    with pytest.raises(RowRefused) as caught:
        load(dbs, path)
    error = caught.value
    assert (error.path, error.number, error.column, error.value) == (path, middle(), column, value)
    assert error.model is shop.Track
    assert str(error).startswith(f"{str(path)!r}, row {middle()} of main.Track, column {column!r}: ")
    assert words in str(error)
    assert not any(shop.contents(dbs).values())


def test_what_differs_is_updated_and_the_rest_left_alone(sqlite: Databases, tmp_path: Path) -> None:
    load(sqlite, shop.CHINOOK)
    before = shop.contents(sqlite)
    load(sqlite, broken(tmp_path, "Track", 1, Name="Another name"))
    found = {each.model: each for each in load(sqlite, shop.CHINOOK)}
    assert found["Track"].updated == 1
    assert found["Track"].unchanged == found["Track"].rows - 1
    assert shop.contents(sqlite) == before
