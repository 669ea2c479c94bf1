"""Tests of the shop: run `pytest` here. Most run the tasks themselves, and one has a real worker."""

import subprocess
import sys

import pytest
from shop import Invoice, Order, app, buy, invoices, send_invoice
from sqlalchemy import select

from stillroom.testing.servers import wait_until


@pytest.fixture
def eager(databases, monkeypatch):
    monkeypatch.setitem(app.conf, "task_always_eager", True)  # a task runs where it would be published


def test_an_order_that_is_durable_has_its_invoice(eager):
    buy(1, "Harbour Lights")

    assert invoices() == ["Pay for 'Harbour Lights'."]


def test_an_order_that_is_refused_has_none(eager, session):
    with pytest.raises(LookupError):
        buy(2, "")

    assert session.scalars(select(Order)).all() == []
    assert session.scalars(select(Invoice)).all() == []


def test_an_invoice_is_made_once_however_often_its_task_is_delivered(uow):
    uow.main.add(Order(number=3, track="Low Tide"))
    uow.commit()

    for _ in range(2):
        send_invoice.apply((3,)).get()

    assert invoices() == ["Pay for 'Low Tide'."]


@pytest.fixture
def worker(isolated_test):
    command = [sys.executable, "-m", "celery", "--app", "shop", "worker", "--pool", "solo"]
    worker = subprocess.Popen(command, env=isolated_test.environ)  # in which the URL is the test database's
    yield worker
    worker.kill()  # it has nothing to do, and its good-bye would take four seconds
    worker.wait()


@pytest.mark.databases(isolation="committed")  # another process sees only what is committed
def test_a_worker_makes_the_invoice(worker):
    buy(4, "Harbour Lights")

    wait_until(invoices, "there is an invoice", timeout=30)
    assert invoices() == ["Pay for 'Harbour Lights'."]
