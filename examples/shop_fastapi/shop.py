# ruff: noqa: INP001  # a module of an application, not of a package
"""A music shop on FastAPI: run `uvicorn shop:app` here."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.concurrency import run_in_threadpool

from stillroom import AsyncRepository, Databases, Settings, UnitOfWork
from stillroom.integrations.fastapi import AsyncUowDep, UowDep, install, repository
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


class Wish(BaseModel):
    """What a customer sends."""

    number: str
    track_id: int


class Orders(AsyncRepository[Order]):
    """What was bought."""


dbs = Databases()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open the shop; the databases are closed after this."""
    dbs.configure(Settings.load())
    await run_in_threadpool(open_shop)
    yield


@dbs.transactional
def open_shop(uow: UnitOfWork) -> None:
    """Make the tables, and the first tracks; where they are there already, do nothing."""
    Log.metadata.create_all(uow.log.connection())
    Main.metadata.create_all(uow.main.connection())
    if uow.main.scalar(select(Track)) is None:
        uow.main.add_all([Track(name="Counting the Ferry", copies=5), Track(name="Harbour Lights", copies=100)])


app = FastAPI(lifespan=lifespan)
install(app, dbs)


@app.get("/tracks")
def tracks(uow: UowDep) -> list[dict[str, Any]]:
    """Show what there is to buy, in a thread."""
    return [to_dict(track) for track in uow.reader.scalars(select(Track).order_by(Track.id))]


@app.post("/orders", status_code=201)
async def buy(wish: Wish, uow: AsyncUowDep, orders: Annotated[Orders, repository(Orders)]) -> dict[str, Any]:
    """Sell one copy. It is sold when the customer has this answer: the COMMIT comes before it."""
    uow.logger.add(LogLine(text=f"order {wish.number}"))
    track = await uow.main.get(Track, wish.track_id, with_for_update=True)
    if track is None:
        raise HTTPException(404)
    if not track.copies:
        raise HTTPException(409, f"{track.name!r} is sold out")
    track.copies -= 1
    order = await orders.add(Order(number=wish.number, track_id=wish.track_id))
    uow.on_commit(lambda: logging.getLogger("uvicorn").info("order %s is paid", order.number))
    return to_dict(order)


@app.exception_handler(HTTPException)
def refuse(_: Request, error: HTTPException) -> JSONResponse:
    """Say why not."""
    return JSONResponse({"error": error.detail}, error.status_code)


@app.exception_handler(IntegrityError)
def conflict(_: Request, error: IntegrityError) -> JSONResponse:
    """Answer what the database refused, be it the INSERT or the COMMIT."""
    return JSONResponse({"error": "there is an order with this number already"}, 409)
