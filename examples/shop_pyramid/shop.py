# ruff: noqa: INP001  # a module of an application, not of a package
"""A music shop on Pyramid: run `PYTHONPATH=. pserve shop.ini` here."""

import logging
from typing import Any

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound
from pyramid.settings import asbool
from pyramid.view import exception_view_config, view_config
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import UnitOfWork
from stillroom.integrations.pyramid import databases_of
from stillroom.models import ModelBase, to_dict

logger = logging.getLogger(__name__)


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


def main(_: dict[str, str], **settings: str) -> Any:
    """Make the application of `shop.ini`; with `shop.open`, fill the shelf where it is empty."""
    with Configurator(settings=settings) as config:
        config.include("stillroom.integrations.pyramid")
        config.add_route("tracks", "/tracks")
        config.add_route("orders", "/orders")
        config.scan(__name__)
        if asbool(settings.get("shop.open")):
            with databases_of(config.registry).unit_of_work() as uow:
                open_shop(uow)
        return config.make_wsgi_app()


def open_shop(uow: UnitOfWork) -> None:
    """Make the tables, and the first tracks; where they are there already, do nothing."""
    Log.metadata.create_all(uow.log.connection())
    Main.metadata.create_all(uow.main.connection())
    if uow.main.scalar(select(Track)) is None:
        uow.main.add_all([Track(name="Counting the Ferry", copies=5), Track(name="Harbour Lights", copies=100)])


@view_config(route_name="tracks", request_method="GET", renderer="json")
def tracks(request: Any) -> Any:
    """Show what there is to buy."""
    return [to_dict(track) for track in request.uow.reader.scalars(select(Track).order_by(Track.id))]


@view_config(route_name="orders", request_method="POST", renderer="json")
def buy(request: Any) -> Any:
    """Sell one copy. It is sold when the customer has this answer: the COMMIT comes before it."""
    order = Order(number=request.json["number"], track_id=request.json["track_id"])
    request.uow.logger.add(LogLine(text=f"order {order.number}"))
    track = request.main.get(Track, order.track_id, with_for_update=True)
    if track is None:
        raise HTTPNotFound
    if not track.copies:
        request.response.status_int = 409
        return {"error": f"{track.name!r} is sold out"}
    track.copies -= 1
    request.main.add(order)
    request.uow.on_commit(lambda: logger.info("order %s is paid", order.number))
    request.response.status_int = 201
    return to_dict(order)


@exception_view_config(IntegrityError, renderer="json")
def conflict(_: IntegrityError, request: Any) -> Any:
    """Answer a COMMIT that the database refused."""
    request.response.status_int = 409
    return {"error": "there is an order with this number already"}
