"""Reads a data set of the shop, and loads it: artists, albums, tracks, customers, and the invoices of the past."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError

from stillroom.demo import models
from stillroom.demo.problems import DemoError
from stillroom.demo.shop import dbs, reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stillroom import UnitOfWork

__all__ = ["Table", "load", "read", "rows"]

# What a data set may leave out, so that there is something to run out of; in copies, in cents.
DEFAULT_STOCK = 45
DEFAULT_BALANCE, POOR_BALANCE = 250_00, 50
ONE_IN_SO_MANY_IS_POOR = 10

# The lists of a data set, and the keys of their objects. The Chinook database has the same, and more, which is ignored.
FORM: dict[str, dict[str, Any]] = {
    "Genre": {"GenreId": int, "Name": str},
    "MediaType": {"MediaTypeId": int, "Name": str},
    "Artist": {"ArtistId": int, "Name": str},
    "Album": {"AlbumId": int, "Title": str, "ArtistId": int},
    "Track": {
        "TrackId": int,
        "Name": str,
        "AlbumId": int,
        "MediaTypeId": int,
        "GenreId": int,
        "Milliseconds": int,
        "UnitPrice": Decimal,
    },
    "Playlist": {"PlaylistId": int, "Name": str},
    "PlaylistTrack": {"PlaylistId": int, "TrackId": int},
    "Employee": {"EmployeeId": int, "FirstName": str, "LastName": str},
    "Customer": {"CustomerId": int, "FirstName": str, "LastName": str, "Email": str, "SupportRepId": int | None},
    "Invoice": {"InvoiceId": int, "CustomerId": int, "InvoiceDate": datetime, "Total": Decimal},
    "InvoiceLine": {"InvoiceLineId": int, "InvoiceId": int, "TrackId": int, "UnitPrice": Decimal, "Quantity": int},
}
OPTIONAL: dict[str, dict[str, Any]] = {
    "Track": {"Stock": int | None},
    "Customer": {"Balance": Decimal | None},
}

Table = tuple[Any, list[dict[str, Any]]]
"""A model, and the values of its rows."""


def read(path: Path | None) -> Any:
    """
    Read a data set.

    Args:
        path: The file, a JSON object of lists; None for the small one that comes with the demo.

    Returns:
        An object with an attribute for each list.

    Raises:
        DemoError: There is no such file, or it has another form.
    """
    lists = [
        (name, list[_struct(name, keys, OPTIONAL.get(name, {}))])  # type: ignore[misc]  # a type made at run time
        for name, keys in FORM.items()
    ]
    form = msgspec.defstruct("Data", lists)
    try:
        content = (files("stillroom.demo") / "data.json" if path is None else path).read_bytes()
        return msgspec.json.decode(content, type=form)
    except OSError as error:
        raise DemoError(
            f"the data set {str(path)!r} cannot be read: {error.strerror}. Name a file, or leave --data out: the demo "
            "has a small data set of its own"
        ) from error
    except msgspec.MsgspecError as error:
        raise DemoError(
            f"{str(path)!r} is not a data set of the shop: {error}. It is a JSON object of the lists "
            f"{', '.join(FORM)}, as in the Chinook database"
        ) from error


def _struct(name: str, keys: dict[str, Any], optional: dict[str, Any]) -> type[msgspec.Struct]:
    return msgspec.defstruct(name, [*keys.items(), *((key, kind, None) for key, kind in optional.items())])


def rows(data: Any) -> dict[str, list[Table]]:
    """
    Turn a data set into rows.

    Args:
        data: As read.

    Returns:
        For each database its tables, those that others refer to first.

    Raises:
        DemoError: A price is not in whole cents.
    """
    return {"catalog": _catalog(data), "sales": _sales(data)}


def _catalog(data: Any) -> list[Table]:
    return [
        (models.Genre, [{"id": each.GenreId, "name": each.Name} for each in data.Genre]),
        (models.MediaType, [{"id": each.MediaTypeId, "name": each.Name} for each in data.MediaType]),
        (models.Artist, [{"id": each.ArtistId, "name": each.Name} for each in data.Artist]),
        (
            models.Album,
            [{"id": each.AlbumId, "title": each.Title, "artist_id": each.ArtistId} for each in data.Album],
        ),
        (models.Track, [_track(each) for each in data.Track]),
        (models.Playlist, [{"id": each.PlaylistId, "name": each.Name} for each in data.Playlist]),
        (
            models.PlaylistTrack,
            [{"playlist_id": each.PlaylistId, "track_id": each.TrackId} for each in data.PlaylistTrack],
        ),
    ]


def _sales(data: Any) -> list[Table]:
    return [
        (
            models.Employee,
            [{"id": each.EmployeeId, "name": f"{each.FirstName} {each.LastName}"} for each in data.Employee],
        ),
        (models.Customer, [_customer(position, each) for position, each in enumerate(data.Customer, start=1)]),
        (models.Invoice, [_invoice(each) for each in data.Invoice]),
        (models.InvoiceLine, [_invoice_line(each) for each in data.InvoiceLine]),
        (models.Till, [{"id": 1, "cents": 0}]),
    ]


def _track(row: Any) -> dict[str, Any]:
    stock = DEFAULT_STOCK if row.Stock is None else row.Stock
    return {
        "id": row.TrackId,
        "name": row.Name,
        "album_id": row.AlbumId,
        "genre_id": row.GenreId,
        "media_type_id": row.MediaTypeId,
        "milliseconds": row.Milliseconds,
        "price": _cents(row.UnitPrice),
        "opening_stock": stock,
        "stock": stock,
    }


def _customer(position: int, row: Any) -> dict[str, Any]:
    if row.Balance is not None:
        balance = _cents(row.Balance)
    else:
        balance = DEFAULT_BALANCE if position % ONE_IN_SO_MANY_IS_POOR else POOR_BALANCE
    return {
        "id": row.CustomerId,
        "name": f"{row.FirstName} {row.LastName}",
        "email": row.Email,
        "support_id": row.SupportRepId,
        "opening_balance": balance,
        "balance": balance,
    }


def _invoice(row: Any) -> dict[str, Any]:
    date = row.InvoiceDate if row.InvoiceDate.tzinfo else row.InvoiceDate.replace(tzinfo=UTC)
    return {"id": row.InvoiceId, "customer_id": row.CustomerId, "date": date, "total": _cents(row.Total)}


def _invoice_line(row: Any) -> dict[str, Any]:
    return {
        "id": row.InvoiceLineId,
        "invoice_id": row.InvoiceId,
        "track_id": row.TrackId,
        "price": _cents(row.UnitPrice),
        "quantity": row.Quantity,
    }


def _cents(amount: Decimal) -> int:
    if amount * 100 != int(amount * 100):
        raise DemoError(f"{str(amount)!r} in the data set is not a sum in whole cents; round it there")
    return int(amount * 100)


def load(tables: dict[str, list[Table]], progress: Callable[[int], object]) -> None:
    """
    Write all rows, in one unit of work: a shop that is loaded by half cannot open.

    Args:
        tables: For each database its tables and their rows.
        progress: Called with the number of rows that were written since the last call.

    Raises:
        DemoError: The rows contradict each other.
    """
    try:
        _load(tables, progress)
    except DBAPIError as error:
        raise DemoError(
            f"the data set cannot be loaded ({reason(error)}): {error.orig}. Each id may be there once, and what a row "
            "refers to must be there too"
        ) from error


@dbs.transactional
def _load(uow: UnitOfWork, tables: dict[str, list[Table]], progress: Callable[[int], object]) -> None:
    for name, contents in tables.items():
        for model, values in contents:
            if values:
                uow.session(name).execute(insert(model), values)
            progress(len(values))
