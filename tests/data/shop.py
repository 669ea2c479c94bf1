"""
The Chinook shop as models, and the databases that hold it.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  # SQLAlchemy reads the annotations
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ForeignKey, Numeric, String, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import Databases

if TYPE_CHECKING:
    from collections.abc import Sequence

_BESIDE = Path(__file__).parents[2] / "../shared/data/chinook/ChinookData.json"
CHINOOK = _BESIDE if _BESIDE.exists() else Path(str(files("stillroom.demo") / "data.json"))
"""The shop where it is beside the project, else the demo's small one."""


class Base(DeclarativeBase):
    """
    The tables, as the data set has them.
    """

    type_annotation_map = {str: String(255), Decimal: Numeric(10, 2)}  # noqa: RUF012  # SQLAlchemy's form


class Genre(Base):
    """
    As the data set has it.
    """

    __tablename__ = "Genre"
    GenreId: Mapped[int] = mapped_column(primary_key=True)
    Name: Mapped[str | None]


class MediaType(Base):
    """
    As the data set has it.
    """

    __tablename__ = "MediaType"
    MediaTypeId: Mapped[int] = mapped_column(primary_key=True)
    Name: Mapped[str | None]


class Artist(Base):
    """
    As the data set has it.
    """

    __tablename__ = "Artist"
    ArtistId: Mapped[int] = mapped_column(primary_key=True)
    Name: Mapped[str | None]


class Album(Base):
    """
    As the data set has it.
    """

    __tablename__ = "Album"
    AlbumId: Mapped[int] = mapped_column(primary_key=True)
    Title: Mapped[str]
    ArtistId: Mapped[int] = mapped_column(ForeignKey("Artist.ArtistId"))


class Track(Base):
    """
    As the data set has it.
    """

    __tablename__ = "Track"
    TrackId: Mapped[int] = mapped_column(primary_key=True)
    Name: Mapped[str]
    AlbumId: Mapped[int | None] = mapped_column(ForeignKey("Album.AlbumId"))
    MediaTypeId: Mapped[int] = mapped_column(ForeignKey("MediaType.MediaTypeId"))
    GenreId: Mapped[int | None] = mapped_column(ForeignKey("Genre.GenreId"))
    Composer: Mapped[str | None]
    Milliseconds: Mapped[int]
    Bytes: Mapped[int | None]
    UnitPrice: Mapped[Decimal]
    Stock: Mapped[int | None]  # of the demo's shop alone


class Employee(Base):
    """
    As the data set has it.
    """

    __tablename__ = "Employee"
    EmployeeId: Mapped[int] = mapped_column(primary_key=True)
    LastName: Mapped[str]
    FirstName: Mapped[str]
    Title: Mapped[str | None]
    ReportsTo: Mapped[int | None] = mapped_column(ForeignKey("Employee.EmployeeId"))
    BirthDate: Mapped[datetime | None]
    HireDate: Mapped[datetime | None]
    Address: Mapped[str | None]
    City: Mapped[str | None]
    State: Mapped[str | None]
    Country: Mapped[str | None]
    PostalCode: Mapped[str | None]
    Phone: Mapped[str | None]
    Fax: Mapped[str | None]
    Email: Mapped[str | None]


class Customer(Base):
    """
    As the data set has it.
    """

    __tablename__ = "Customer"
    CustomerId: Mapped[int] = mapped_column(primary_key=True)
    LastName: Mapped[str]
    FirstName: Mapped[str]
    Company: Mapped[str | None]
    Address: Mapped[str | None]
    City: Mapped[str | None]
    State: Mapped[str | None]
    Country: Mapped[str | None]
    PostalCode: Mapped[str | None]
    Phone: Mapped[str | None]
    Fax: Mapped[str | None]
    Email: Mapped[str]
    SupportRepId: Mapped[int | None] = mapped_column(ForeignKey("Employee.EmployeeId"))
    Balance: Mapped[Decimal | None]  # of the demo's shop alone


class Invoice(Base):
    """
    As the data set has it.
    """

    __tablename__ = "Invoice"
    InvoiceId: Mapped[int] = mapped_column(primary_key=True)
    CustomerId: Mapped[int] = mapped_column(ForeignKey("Customer.CustomerId"))
    InvoiceDate: Mapped[datetime]
    BillingAddress: Mapped[str | None]
    BillingCity: Mapped[str | None]
    BillingState: Mapped[str | None]
    BillingCountry: Mapped[str | None]
    BillingPostalCode: Mapped[str | None]
    Total: Mapped[Decimal]


class InvoiceLine(Base):
    """
    As the data set has it.
    """

    __tablename__ = "InvoiceLine"
    InvoiceLineId: Mapped[int] = mapped_column(primary_key=True)
    InvoiceId: Mapped[int] = mapped_column(ForeignKey("Invoice.InvoiceId"))
    TrackId: Mapped[int] = mapped_column(ForeignKey("Track.TrackId"))
    UnitPrice: Mapped[Decimal]
    Quantity: Mapped[int]


class Playlist(Base):
    """
    As the data set has it.
    """

    __tablename__ = "Playlist"
    PlaylistId: Mapped[int] = mapped_column(primary_key=True)
    Name: Mapped[str | None]


class PlaylistTrack(Base):
    """
    As the data set has it.
    """

    __tablename__ = "PlaylistTrack"
    PlaylistId: Mapped[int] = mapped_column(ForeignKey("Playlist.PlaylistId"), primary_key=True)
    TrackId: Mapped[int] = mapped_column(ForeignKey("Track.TrackId"), primary_key=True)


def databases(url: str, **settings: Any) -> Databases:
    """
    Make the databases: one, `main`, with the shop's models.
    """
    return Databases({"databases": {"main": {"url": url, "metadata": "tests.data.shop:Base", **settings}}})


def contents(dbs: Databases) -> dict[str, Sequence[Any]]:
    """
    Read every row of every table, in the order of the keys.
    """
    with dbs.unit_of_work() as uow:
        return {
            table.name: [tuple(row) for row in uow.main.execute(select(table).order_by(*table.primary_key.columns))]
            for table in Base.metadata.sorted_tables
        }
