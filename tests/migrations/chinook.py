"""
The whole schema of the Chinook database: eleven tables, with the names, sizes and references of the original.
"""

from __future__ import annotations

from sqlalchemy import Column, DateTime, ForeignKey, Index, Integer, MetaData, Numeric, String, Table

from stillroom.models import NAMING_CONVENTION

models = MetaData(naming_convention=NAMING_CONVENTION)


def key(name: str) -> Column[int]:
    return Column(name, Integer, primary_key=True)


def to(target: str, name: str = "", *, optional: bool = True) -> Column[int]:
    return Column(name or target.partition(".")[2], ForeignKey(target), nullable=optional, index=True)


ADDRESS = {"Address": 70, "City": 40, "State": 40, "Country": 40, "PostalCode": 10, "Phone": 24, "Fax": 24}


def texts(**sizes: int) -> list[Column[str]]:
    return [Column(name, String(size)) for name, size in sizes.items()]


Table("Artist", models, key("ArtistId"), *texts(Name=120))
Table("Genre", models, key("GenreId"), *texts(Name=120))
Table("MediaType", models, key("MediaTypeId"), *texts(Name=120))
Table("Playlist", models, key("PlaylistId"), *texts(Name=120))
Table(
    "Album",
    models,
    key("AlbumId"),
    Column("Title", String(160), nullable=False),
    to("Artist.ArtistId", optional=False),
)
Table(
    "Track",
    models,
    key("TrackId"),
    Column("Name", String(200), nullable=False),
    to("Album.AlbumId"),
    to("MediaType.MediaTypeId", optional=False),
    to("Genre.GenreId"),
    *texts(Composer=220),
    Column("Milliseconds", Integer, nullable=False),
    Column("Bytes", Integer),
    Column("UnitPrice", Numeric(10, 2), nullable=False),
)
Table(
    "PlaylistTrack",
    models,
    Column("PlaylistId", ForeignKey("Playlist.PlaylistId"), primary_key=True),
    Column("TrackId", ForeignKey("Track.TrackId"), primary_key=True),
    Index(None, "TrackId"),
)
Table(
    "Employee",
    models,
    key("EmployeeId"),
    Column("LastName", String(20), nullable=False),
    Column("FirstName", String(20), nullable=False),
    *texts(Title=30),
    to("Employee.EmployeeId", "ReportsTo"),
    Column("BirthDate", DateTime),
    Column("HireDate", DateTime),
    *texts(**ADDRESS, Email=60),
)
Table(
    "Customer",
    models,
    key("CustomerId"),
    Column("FirstName", String(40), nullable=False),
    Column("LastName", String(20), nullable=False),
    *texts(Company=80, **ADDRESS),
    Column("Email", String(60), nullable=False),
    to("Employee.EmployeeId", "SupportRepId"),
)
Table(
    "Invoice",
    models,
    key("InvoiceId"),
    to("Customer.CustomerId", optional=False),
    Column("InvoiceDate", DateTime, nullable=False),
    *texts(BillingAddress=70, BillingCity=40, BillingState=40, BillingCountry=40, BillingPostalCode=10),
    Column("Total", Numeric(10, 2), nullable=False),
)
Table(
    "InvoiceLine",
    models,
    key("InvoiceLineId"),
    to("Invoice.InvoiceId", optional=False),
    to("Track.TrackId", optional=False),
    Column("UnitPrice", Numeric(10, 2), nullable=False),
    Column("Quantity", Integer, nullable=False),
)
