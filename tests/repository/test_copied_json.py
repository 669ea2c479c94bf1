"""
JSON values that COPY writes are those that INSERT would write.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import JSON, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import Databases, Repository
from tests.aio.support import with_driver


class Base(DeclarativeBase):
    """
    The table of these tests.
    """


class Note(Base):
    """
    Both of PostgreSQL's types, with a value or none.
    """

    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    plain: Mapped[Any] = mapped_column(JSON(), nullable=True)
    binary: Mapped[Any] = mapped_column(JSONB(none_as_null=True), nullable=True)


VALUES: tuple[Any, ...] = ({"a": [1, 2.5, None]}, [], "text", 'quoted "é" \\', 7, False, None, JSON.NULL)


def as_text(value: object) -> str:
    return json.dumps({"wrapped": value})


def as_bytes(value: object) -> bytes:
    return as_text(value).encode()


@pytest.mark.parametrize("serializer", [None, as_text, as_bytes])
def test_copy_stores_json_as_insert_does(postgresql_database: str, serializer: Any) -> None:
    options = {} if serializer is None else {"engine": {"json_serializer": serializer}}
    url = with_driver(postgresql_database, "psycopg")
    with Databases({"databases": {"main": {"url": url} | options}}) as databases:
        Base.metadata.create_all(databases["main"].engine)
        found = []
        for method in ("load", "add_all"):
            with databases.unit_of_work() as uow:
                notes = Repository[Note](uow)
                rows = [{"id": number, "plain": each, "binary": each} for number, each in enumerate(VALUES, 1)]
                if method == "load":
                    notes.load(rows)
                else:
                    uow.main.add_all(Note(**row) for row in rows)
                    uow.main.flush()
                columns = (Note.plain.is_(None), Note.binary.is_(None), Note.plain, Note.binary)
                found.append(uow.main.execute(select(*columns).order_by(Note.id)).all())
                notes.delete_where(all_rows=True)
    assert found[0] == found[1]
