# ruff: noqa: INP001  # a module of an application, not of a package
"""A music shop on Flask: run `flask --app shop run` here, or `gunicorn --preload --workers 4 "shop:create_app()"`."""

from typing import Any

from flask import Blueprint, Flask, abort, current_app, jsonify, request
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import Databases, Settings, UnitOfWork
from stillroom.integrations.flask import current_uow, install
from stillroom.models import ModelBase, to_dict


class Main(ModelBase, DeclarativeBase, database="main"):
    """The base of the tables in `main`."""


class Log(ModelBase, DeclarativeBase, database="log"):
    """The base of the tables in `log`."""


class Track(Main):
    """What there is to buy."""

    __tablename__ = "tracks"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    copies: Mapped[int]


class Order(Main):
    """What was bought; its number is the customer's, so that an order sent twice is one order."""

    __tablename__ = "orders"
    number: Mapped[str] = mapped_column(primary_key=True)
    track_id: Mapped[int]


class LogLine(Log):
    """What somebody tried, whatever became of it."""

    __tablename__ = "log"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


dbs = Databases()
shop = Blueprint("shop", __name__)


def create_app() -> Flask:
    """Make the application, and fill the shelf where it is empty."""
    dbs.configure(Settings.load())
    open_shop()
    app = Flask(__name__)
    install(app, dbs)
    app.register_blueprint(shop)
    return app


@dbs.transactional
def open_shop(uow: UnitOfWork) -> None:
    """Make the tables, and the first tracks; where they are there already, do nothing."""
    Log.metadata.create_all(uow.log.connection())
    Main.metadata.create_all(uow.main.connection())
    if uow.main.scalar(select(Track)) is None:
        uow.main.add_all([Track(name="Counting the Ferry", copies=5), Track(name="Harbour Lights", copies=100)])


@shop.get("/tracks")
def tracks() -> Any:
    """Show what there is to buy."""
    return jsonify([to_dict(track) for track in current_uow.reader.scalars(select(Track).order_by(Track.id))])


@shop.post("/orders")
def buy() -> Any:
    """Sell one copy. It is sold when the customer has this answer: the COMMIT comes before it."""
    order = Order(number=request.json["number"], track_id=request.json["track_id"])
    current_uow.logger.add(LogLine(text=f"order {order.number}"))
    track = current_uow.main.get(Track, order.track_id, with_for_update=True)
    if track is None:
        abort(404)
    if not track.copies:
        return {"error": f"{track.name!r} is sold out"}, 409
    track.copies -= 1
    current_uow.main.add(order)
    current_uow.on_commit(lambda: current_app.logger.info("order %s is paid", order.number))
    return to_dict(order), 201


@shop.errorhandler(IntegrityError)
def conflict(_: IntegrityError) -> Any:
    """Answer a COMMIT that the database refused."""
    return {"error": "there is an order with this number already"}, 409
