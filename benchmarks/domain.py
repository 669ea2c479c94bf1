"""
How fast are domain objects made of mapped objects, against code by hand and `from_attributes` of msgspec and pydantic?
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stillroom.repository import Repository

from .measuring import compare
from .report import Figure, Result, Scale, costs

if TYPE_CHECKING:
    from .measuring import Work

ROWS = 1000
BAR = 1.0


class Base(DeclarativeBase):
    """
    The table.
    """


class TrackRow(Base):
    """
    Ten columns.
    """

    __tablename__ = "track"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    album: Mapped[str]
    artist: Mapped[str]
    composer: Mapped[str | None]
    genre: Mapped[str]
    milliseconds: Mapped[int]
    size: Mapped[int]
    price: Mapped[float]
    copies: Mapped[int]


TYPES: dict[str, Any] = {
    "id": int,
    **dict.fromkeys(("name", "album", "artist"), str),
    "composer": str | None,
    "genre": str,
    **dict.fromkeys(("milliseconds", "size"), int),
    "price": float,
    "copies": int,
}
TrackObject: Any = dataclasses.make_dataclass("TrackObject", TYPES.items(), frozen=True, slots=True)
TrackStruct: Any = msgspec.defstruct("TrackStruct", list(TYPES.items()))


def run(scale: Scale) -> Result:
    """
    Make 1,000 objects of 1,000 loaded rows, as each kind of class.
    """
    result = Result()
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(_row(number) for number in range(scale.pick(ROWS, 20)))
        session.commit()
        rows = session.scalars(select(TrackRow)).all()
        ways: list[tuple[str, Work]] = [
            ("dataclass by hand", lambda: [_by_hand(row) for row in rows]),
            ("dataclass, Stillroom", _stillroom(TrackObject, rows)),
            ("msgspec from_attributes", lambda: [msgspec.convert(r, TrackStruct, from_attributes=True) for r in rows]),
            ("msgspec, Stillroom", _stillroom(TrackStruct, rows)),
            *_pydantic(rows, result),
        ]
        measured = compare(ways, rounds=scale.pick(40, 3), batch=scale.pick(5, 2))
    engine.dispose()
    result.tables.append(costs("1,000 domain objects of ten columns, of rows that are loaded", measured))
    cpu = {each.name: each.cpu for each in measured}
    for peer in ("dataclass by hand", "msgspec from_attributes", "pydantic from_attributes"):
        if peer in cpu:
            ours = f"{peer.split()[0]}, Stillroom"
            result.figures.append(Figure(f"CPU of {ours} to {peer}", cpu[ours] / cpu[peer], BAR))
    return result


def _row(number: int) -> TrackRow:
    values = {name: f"{name} {number}" for name, type_ in TYPES.items() if type_ in (str, str | None)}
    return TrackRow(**values, milliseconds=number, size=number, price=0.99, copies=3)


def _by_hand(row: TrackRow) -> Any:
    return TrackObject(
        id=row.id,
        name=row.name,
        album=row.album,
        artist=row.artist,
        composer=row.composer,
        genre=row.genre,
        milliseconds=row.milliseconds,
        size=row.size,
        price=row.price,
        copies=row.copies,
    )


def _stillroom(class_: Any, rows: Any) -> Work:
    out_all = Repository[TrackRow, class_].describe().out_all
    return lambda: out_all(rows)


def _pydantic(rows: Any, result: Result) -> list[tuple[str, Work]]:
    try:
        import pydantic
    except ImportError as error:
        result.notes.append(f"pydantic: not measured, {error}")
        return []
    fields: Any = {name: (type_, ...) for name, type_ in TYPES.items()}
    model = pydantic.create_model("TrackModel", __config__=pydantic.ConfigDict(from_attributes=True), **fields)
    return [
        ("pydantic from_attributes", lambda: [model.model_validate(row) for row in rows]),
        ("pydantic, Stillroom", _stillroom(model, rows)),
    ]
