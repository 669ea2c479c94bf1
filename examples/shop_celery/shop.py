# ruff: noqa: INP001  # a module of an application, not of a package
"""A shop whose invoices are made by Celery: `python shop.py` here; with SHOP_BROKER=amqp://… over a real broker."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from celery import Celery
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import Databases, Retry, Settings, UnitOfWork
from stillroom.integrations.celery import install
from stillroom.models import ModelBase


class Main(ModelBase, DeclarativeBase, database="main"):
    """The base of the tables in `main`."""


class Order(Main):
    """What was bought."""

    __tablename__ = "orders"
    number: Mapped[int] = mapped_column(primary_key=True)
    track: Mapped[str]


class Invoice(Main):
    """At most one for each order, however often its task is delivered."""

    __tablename__ = "invoices"
    number: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


dbs = Databases(Settings.load())
app = Celery("shop", broker=os.environ.get("SHOP_BROKER", "filesystem://"))
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_enable_remote_control=False)
install(app, dbs, retry=Retry(attempts=5))

if app.conf.broker_url == "filesystem://":
    Path("messages").mkdir(exist_ok=True)
    app.conf.broker_transport_options = dict.fromkeys(
        ["data_folder_in", "data_folder_out", "control_folder"], "messages"
    )


@app.task(bind=True)
def send_invoice(self: Any, number: int) -> None:
    """Make the invoice of an order; the order is always there, and the invoice may be."""
    if self.uow.main.get(Invoice, number) is None:
        order = self.uow.main.get_one(Order, number)
        self.uow.main.add(Invoice(number=number, text=f"Pay for {order.track!r}."))


@dbs.transactional
def buy(uow: UnitOfWork, number: int, track: str) -> None:
    """Take an order; its invoice is asked for when the order is durable, and never if it is refused."""
    send_invoice.delay_on_commit(number)
    if not track:
        raise LookupError("there is no such track")
    uow.main.add(Order(number=number, track=track))


@dbs.transactional(read_only=True)
def invoices(uow: UnitOfWork) -> list[str]:
    """Return the invoices that there are."""
    return list(uow.main.scalars(select(Invoice.text).order_by(Invoice.number)))


def main() -> None:
    """Take two orders and refuse one, and let a worker make the invoices."""
    Main.metadata.create_all(dbs.main.engine)
    for number, track in enumerate(["Counting the Ferry", "", "Harbour Lights"]):
        try:
            buy(number, track)
        except LookupError as error:
            print(error)
    worker = subprocess.Popen([sys.executable, "-m", "celery", "--app", "shop", "worker", "--concurrency", "2"])
    while len(invoices()) < 2 and worker.poll() is None:
        time.sleep(0.1)
    worker.terminate()
    worker.wait()
    print(*invoices(), sep="\n")


if __name__ == "__main__":
    main()
