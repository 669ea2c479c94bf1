"""The shop's tables: what there is to buy in `catalog`, who bought it in `sales`, what happened in `log`."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from stillroom.models import ModelBase, Timestamps

# Money is in whole cents everywhere: binary fractions do not add up.


class Catalog(ModelBase, DeclarativeBase, database="catalog"):
    """
    The base of the tables in `catalog`.
    """


class Sales(ModelBase, DeclarativeBase, database="sales"):
    """
    The base of the tables in `sales`.
    """


class Log(ModelBase, DeclarativeBase, database="log"):
    """
    The base of the tables in `log`.
    """


BASES: dict[str, Any] = {"catalog": Catalog, "sales": Sales, "log": Log}


# --- catalog


class Genre(Catalog):
    """
    A kind of music.
    """

    __tablename__ = "genres"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))


class MediaType(Catalog):
    """
    A format that tracks are sold in.
    """

    __tablename__ = "media_types"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))


class Artist(Catalog):
    """
    Who plays.
    """

    __tablename__ = "artists"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))


class Album(Catalog):
    """
    A record by one artist.
    """

    __tablename__ = "albums"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(255))
    artist_id: Mapped[int] = mapped_column(ForeignKey(Artist.id))


class Track(Catalog):
    """
    What the shop sells, and how many copies of it are left.
    """

    __tablename__ = "tracks"
    __table_args__ = (CheckConstraint("stock >= 0", name="stock"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    album_id: Mapped[int] = mapped_column(ForeignKey(Album.id))
    genre_id: Mapped[int] = mapped_column(ForeignKey(Genre.id))
    media_type_id: Mapped[int] = mapped_column(ForeignKey(MediaType.id))
    milliseconds: Mapped[int]
    price: Mapped[int]
    opening_stock: Mapped[int]
    stock: Mapped[int]


class Reservation(Timestamps, Catalog):
    """
    Copies that left the stock for an order; the order itself is in the other database.
    """

    __tablename__ = "reservations"
    # An order sent twice cannot take from the stock twice.
    __table_args__ = (UniqueConstraint("order_number", "track_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    order_number: Mapped[str] = mapped_column(String(20))
    track_id: Mapped[int] = mapped_column(ForeignKey(Track.id))
    quantity: Mapped[int]


class Playlist(Catalog):
    """
    Tracks that go together.
    """

    __tablename__ = "playlists"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))


class PlaylistTrack(Catalog):
    """
    A track on a playlist.
    """

    __tablename__ = "playlist_tracks"

    playlist_id: Mapped[int] = mapped_column(ForeignKey(Playlist.id), primary_key=True)
    track_id: Mapped[int] = mapped_column(ForeignKey(Track.id), primary_key=True)


# --- sales


class Employee(Sales):
    """
    Who works here.
    """

    __tablename__ = "employees"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))


class Customer(Sales):
    """
    Who buys, and what is left of the money they brought.
    """

    __tablename__ = "customers"
    __table_args__ = (CheckConstraint("balance >= 0", name="balance"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    email: Mapped[str] = mapped_column(String(255))
    support_id: Mapped[int | None] = mapped_column(ForeignKey(Employee.id))
    opening_balance: Mapped[int]
    balance: Mapped[int]


class Till(Sales):
    """
    The shop's money: one row, which every order changes.
    """

    __tablename__ = "till"

    id: Mapped[int] = mapped_column(primary_key=True)
    cents: Mapped[int]


class Order(Timestamps, Sales):
    """
    What one customer bought at once. An order is valid because it is here; `catalog` follows.
    """

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(String(20), unique=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id))
    total: Mapped[int]
    lines: Mapped[list["OrderLine"]] = relationship()


class OrderLine(Sales):
    """
    One track of an order; `track_id` points into the other database, where no foreign key reaches.
    """

    __tablename__ = "order_lines"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id))
    track_id: Mapped[int]
    price: Mapped[int]
    quantity: Mapped[int]


class Invoice(Sales):
    """
    A sale of the past, from the data set.
    """

    __tablename__ = "invoices"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id))
    date: Mapped[datetime]
    total: Mapped[int]


class InvoiceLine(Sales):
    """
    One track of an invoice.
    """

    __tablename__ = "invoice_lines"

    id: Mapped[int] = mapped_column(primary_key=True)
    invoice_id: Mapped[int] = mapped_column(ForeignKey(Invoice.id))
    track_id: Mapped[int]
    price: Mapped[int]
    quantity: Mapped[int]


# --- log


class LogLine(Timestamps, Log):
    """
    Something that happened to a request, kept whatever became of its unit of work.
    """

    __tablename__ = "log_lines"

    id: Mapped[int] = mapped_column(primary_key=True)
    request: Mapped[int]
    event: Mapped[str] = mapped_column(String(20))
    detail: Mapped[str] = mapped_column(String(500), default="")
