"""The check of the books finds what is off: rows are changed behind the shop's back, after the last order."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from stillroom import Settings
from stillroom.cli import main
from stillroom.demo import running
from stillroom.demo.check import check_books
from stillroom.demo.models import BASES
from stillroom.demo.shop import dbs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stillroom.demo.check import Finding
    from stillroom.demo.workers import Trade


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trade]:
    """
    The files of a shop whose books are in order after its last order, and what its customers were told.
    """
    directory = tmp_path_factory.mktemp("shop")
    trades: list[Trade] = []

    def check(trade: Trade) -> list[Finding]:
        trades.append(trade)
        return check_books(trade)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "check_books", check)
        assert running.run(running.Options(orders=8, processes=1, keep=directory)).ok
    return directory, trades[0]


@pytest.fixture
def trade(evening: tuple[Path, Trade], tmp_path: Path) -> Iterator[Trade]:
    """
    The shop of that evening, open again, on files of its own.
    """
    files, trade = evening
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    databases = {name: {"url": f"sqlite:///{tmp_path / name}.db"} for name in BASES}
    databases["log"]["role"] = "logger"
    dbs.configure(Settings.from_mapping({"default": "sales", "databases": databases}, environ={}))
    yield copy.deepcopy(trade)
    dbs.close()


def change(tampering: str) -> None:
    """
    Change rows of a database: "name: statement".
    """
    name, _, statement = tampering.partition(": ")
    with dbs[name].begin() as connection:
        assert connection.execute(text(statement)).rowcount > 0


def off(findings: list[Finding]) -> set[str]:
    """
    Return the names of the checks that found something.
    """
    return {each.name for each in findings if not each.ok}


TAMPERED = {
    "catalog: update tracks set stock = stock + 1 where id = 7": {"opening stock - reserved = stock"},
    "catalog: update reservations set quantity = 3 where id = 1": {
        "opening stock - reserved = stock",
        "what catalog reserved is what sales sold",
    },
    "sales: update customers set balance = balance - 1 where id = 2": {"opening balance - paid = balance"},
    "sales: update till set cents = cents - 1": {"the till holds what was paid"},
    "sales: update invoices set total = total + 1 where id = 3": {"each invoice's total is the sum of its lines"},
    "sales: update order_lines set price = price + 1 where id = 1": {
        "each order's total is the sum of its lines",
        "sold at the price of the catalog",
    },
    "sales: update orders set number = 'S-lost' where id = 1": {
        "each acknowledged order is there, exactly once",
        "what catalog reserved is what sales sold",
    },
    "log: delete from log_lines where event = 'rolled back'": {"each failed order is in the log"},
    "log: delete from log_lines where event = 'died'": {"each failed order is in the log"},
}


@pytest.mark.parametrize("tampering", TAMPERED)
def test_a_changed_row_is_found(tampering: str, trade: Trade) -> None:
    change(tampering)
    assert off(check_books(trade)) == TAMPERED[tampering]


def test_an_order_that_was_acknowledged_twice_is_found(trade: Trade) -> None:
    trade.receipts.append(trade.receipts[0])
    assert "each acknowledged order is there, exactly once" in off(check_books(trade))


def test_a_request_without_an_answer_is_found(trade: Trade) -> None:
    trade.requests.append(replace(trade.requests[0], id=99))
    assert off(check_books(trade)) == {"each request came to exactly one end"}


def test_an_untouched_shop_is_in_order(trade: Trade) -> None:
    assert off(check_books(trade)) == set()


def test_what_is_off_is_in_the_table_and_the_exit_code_is_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check_after_tampering(trade: Trade) -> list[Finding]:
        change("sales: update till set cents = cents - 1")
        return check_books(trade)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "check_books", check_after_tampering)
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--orders", "8", "--processes", "1"])
    assert ended.value.code == 1
    lines = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│ OFF" in line]
    assert [line[2].strip() for line in lines] == ["the till holds what was paid"]
