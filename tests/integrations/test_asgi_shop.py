"""
The shop on FastAPI, as its users start it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.integrations.shops import Shop

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_shop_sells_to_a_crowd_what_it_has_and_not_more(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shop = Shop("shop_fastapi", tmp_path, request.getfixturevalue(f"{database}_database"))
    with shop.open():
        orders = [{"number": f"A-{number}", "track_id": 1} for number in range(12)]
        with ThreadPoolExecutor(6) as crowd:
            answers = list(crowd.map(lambda order: shop.ask("/orders", order), orders))
        sold = [answer["number"] for status, answer in answers if status == 201]
        refused = [answer["error"] for status, answer in answers if status == 409]
        assert (len(sold), refused) == (5, ["'Counting the Ferry' is sold out"] * 7)

        twice = {"number": sold[0], "track_id": 2}
        assert shop.ask("/orders", twice) == (409, {"error": "there is an order with this number already"})
        assert shop.ask("/orders", {"number": "B-1", "track_id": 3})[0] == 404
        assert [track["copies"] for track in shop.ask("/tracks")[1]] == [0, 100]
    assert shop.lines() == 14
