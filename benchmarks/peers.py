"""
The same unit of work in other libraries, each in the way that its own documentation shows.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker

from stillroom import Databases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import Engine

    from .measuring import Work

    Body = Callable[[Any], object]


@dataclass(frozen=True)
class Peer:
    """
    A library that runs units of work.

    Attributes:
        name: of the library.
        engine: where its units go.
        unit: runs a body in a unit of work, with a session as argument, and commits.
        writes: its units may write.
    """

    name: str
    engine: Engine
    unit: Callable[[Body], None]
    writes: bool = True

    def doing(self, body: Body) -> Work:
        """
        Return the work that runs `body` in a unit.
        """
        unit = self.unit
        return lambda: unit(body)


def bare(url: str, **options: Any) -> Peer:
    """
    Return SQLAlchemy alone, as its own documentation shows: the measure of all others.
    """
    engine = create_engine(url, **options)

    def unit(body: Body) -> None:
        with Session(engine) as session:
            body(session)
            session.commit()

    return Peer("bare Session", engine, unit)


def bare_begin(url: str) -> Peer:
    """
    Return SQLAlchemy alone with `sessionmaker.begin()`.
    """
    engine = create_engine(url)
    make = sessionmaker(engine)

    def unit(body: Body) -> None:
        with make.begin() as session:
            body(session)

    return Peer("sessionmaker.begin()", engine, unit)


def stillroom(url: str) -> Peer:
    """
    Return our unit of work.
    """
    databases = Databases({"databases": {"main": {"url": url}}})

    def unit(body: Body) -> None:
        with databases.unit_of_work() as uow:
            body(uow.main)

    return Peer("Stillroom", databases["main"].engine, unit)


def stillroom_reader(url: str) -> Peer:
    """
    Return our unit of work with a reader.
    """
    databases = Databases({"databases": {"main": {"url": url}}})

    def unit(body: Body) -> None:
        with databases.unit_of_work() as uow:
            body(uow.reader)

    return Peer("Stillroom, reader", databases["main"].engine, unit, writes=False)


def flask_sqlalchemy(url: str) -> Peer:
    """
    Return Flask-SQLAlchemy, each unit in an application context.
    """
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    app = Flask("benchmarks")
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    extension = SQLAlchemy(app)

    def unit(body: Body) -> None:
        with app.app_context():
            body(extension.session)
            extension.session.commit()

    with app.app_context():
        engine = extension.engine
    return Peer("Flask-SQLAlchemy", engine, unit)


def flask_sqlalchemy_lite(url: str) -> Peer:
    """
    Return Flask-SQLAlchemy-Lite, each unit in an application context.
    """
    from flask import Flask
    from flask_sqlalchemy_lite import SQLAlchemy

    app = Flask("benchmarks")
    app.config["SQLALCHEMY_ENGINES"] = {"default": url}
    extension = SQLAlchemy(app)

    def unit(body: Body) -> None:
        with app.app_context():
            body(extension.session)
            extension.session.commit()

    with app.app_context():
        engine = extension.engine
    return Peer("Flask-SQLAlchemy-Lite", engine, unit)


def oslo_db(url: str) -> Peer:
    """
    Return oslo.db's enginefacade.
    """
    from oslo_db.sqlalchemy import enginefacade

    @enginefacade.transaction_context_provider
    class Context:
        """
        What oslo.db keeps its transactions in: one for each request.
        """

    facade = enginefacade.transaction_context()
    facade.configure(connection=url, sqlite_fk=True)

    def unit(body: Body) -> None:
        with facade.writer.using(Context()) as session:
            body(session)

    return Peer("oslo.db", facade.writer.get_engine(), unit)


def zope_sqlalchemy(url: str) -> Peer:
    """
    Return zope.sqlalchemy with the transaction package.
    """
    import transaction
    from zope.sqlalchemy import register

    engine = create_engine(url)
    make = sessionmaker(engine)
    register(make)

    def unit(body: Body) -> None:
        with transaction.manager:
            body(make())

    return Peer("zope.sqlalchemy", engine, unit)


def advanced_alchemy(url: str) -> Peer:
    """
    Return Advanced Alchemy's configuration with its session.
    """
    from advanced_alchemy.config import SQLAlchemySyncConfig

    config = SQLAlchemySyncConfig(connection_string=url)

    def unit(body: Body) -> None:
        with config.get_session() as session:
            body(session)
            session.commit()

    return Peer("Advanced Alchemy", config.get_engine(), unit)


LIBRARIES = (flask_sqlalchemy, flask_sqlalchemy_lite, oslo_db, zope_sqlalchemy, advanced_alchemy)
"""Other libraries, not SQLAlchemy itself."""


@contextlib.contextmanager
def opened(*makers: Callable[[str], Peer], url: str, notes: list[str]) -> Iterator[list[Peer]]:
    """
    Set peers up on `url` and close their connections in the end; who is not installed is noted and left out.
    """
    found = []
    try:
        for make in makers:
            try:
                found.append(make(url))
            except ImportError as error:
                notes.append(f"{make.__name__}: not measured, {error}")
        yield found
    finally:
        for peer in found:
            peer.engine.dispose()
