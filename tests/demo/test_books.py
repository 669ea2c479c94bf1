"""The check of the books finds what is off: rows are changed behind the shop's back, after the last order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from stillroom.cli import main
from stillroom.demo import running
from stillroom.demo.check import check_books
from stillroom.demo.shop import dbs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stillroom.demo.check import Finding
    from stillroom.demo.workers import Trade


def run_with(tamper: Callable[[Trade], None], directory: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """
    Run the demo, with something happening between the last order and the check; return its exit code.
    """

    def check_after_tampering(trade: Trade) -> list[Finding]:
        tamper(trade)
        return check_books(trade)

    monkeypatch.chdir(directory)
    monkeypatch.setattr(running, "check_books", check_after_tampering)
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--orders", "8", "--processes", "1"])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def off(captured: str) -> list[str]:
    """
    Return the lines of the checks that found something.
    """
    return [line.split("│")[2].strip() for line in captured.splitlines() if "│ OFF" in line]


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


@pytest.mark.parametrize("change", TAMPERED)
def test_a_changed_row_is_found_and_the_exit_code_is_1(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, _, statement = change.partition(": ")

    def tamper(trade: Trade) -> None:
        with dbs[name].begin() as connection:
            assert connection.execute(text(statement)).rowcount > 0

    assert run_with(tamper, tmp_path, monkeypatch) == 1
    assert set(off(capsys.readouterr().out)) == TAMPERED[change]


def test_an_order_that_was_acknowledged_twice_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tamper(trade: Trade) -> None:
        trade.receipts.append(trade.receipts[0])

    assert run_with(tamper, tmp_path, monkeypatch) == 1
    assert "each acknowledged order is there, exactly once" in off(capsys.readouterr().out)


def test_a_request_without_an_answer_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tamper(trade: Trade) -> None:
        trade.requests.append(replace(trade.requests[0], id=99))

    assert run_with(tamper, tmp_path, monkeypatch) == 1
    assert off(capsys.readouterr().out) == ["each request came to exactly one end"]


def test_an_untouched_shop_is_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_with(lambda _: None, tmp_path, monkeypatch) == 0
