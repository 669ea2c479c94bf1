"""
A small application for tests of the whole toolkit: two databases, and a look at their rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import String, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import Databases, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session


class Base(DeclarativeBase):
    """
    The tables of both databases.
    """


class Album(Base):
    """
    A row.
    """

    __tablename__ = "album"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50))


def seed(session: Session) -> None:
    """
    Put the row that every test finds.
    """
    session.add(Album(title="seed"))


def settings(main: str, directory: Path) -> Settings:
    """
    Return the settings: `main` where it is asked for, `audit` an SQLite file.
    """
    urls = {"main": main, "audit": f"sqlite:///{directory}/audit_test.db"}
    databases = {name: {"url": url, "metadata": "tests.testing.shop:Base"} for name, url in urls.items()}
    return Settings.from_mapping({"default": "main", "databases": databases}, environ={})


def add(databases: Databases, title: str = "x", name: str = "main") -> None:
    """
    Commit a row, in a unit of work of its own.
    """
    with databases.unit_of_work() as uow:
        uow.session(name).add(Album(title=title))


def titles(databases: Databases, name: str = "main", **options: Any) -> list[str]:
    """
    Read the rows, in a unit of work of their own.
    """
    with databases.unit_of_work() as uow:
        return list(uow.session(name, **options).scalars(select(Album.title).order_by(Album.title)))


def count(databases: Databases, name: str = "main") -> int:
    """
    Count the rows, in a unit of work of their own.
    """
    with databases.unit_of_work() as uow:
        return uow.session(name).scalar(select(func.count()).select_from(Album)) or 0
