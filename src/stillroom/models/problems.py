"""
The errors of models: an unknown column, columns that cannot be loaded, a time without its zone, a base made wrong.
"""

from __future__ import annotations

from sqlalchemy import exc
from sqlalchemy.orm.exc import DetachedInstanceError

from stillroom.errors import StillroomError

__all__ = ["ColumnsNotLoaded", "InexactDecimal", "InvalidModel", "NaiveDatetime", "UnknownColumn"]


class UnknownColumn(StillroomError, exc.ArgumentError):
    """
    A model has no such column.
    """


class ColumnsNotLoaded(StillroomError, DetachedInstanceError):
    """
    Columns of an instance are not loaded and cannot be, because it has no session or its session needs ``await``.

    Attributes:
        columns: the names of the attributes that are missing.
    """

    columns: tuple[str, ...]

    def __init__(self, message: str, *, columns: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.columns = columns


class NaiveDatetime(StillroomError, exc.DontWrapMixin, ValueError):
    """
    A datetime without a time zone was given to a column that stores points in time.

    It is raised as it is, not inside of a ``StatementError``, whose text would hide it behind the statement.
    """


class InexactDecimal(StillroomError, exc.DontWrapMixin, ValueError):
    """
    A number has more digits than its column keeps.
    """


class InvalidModel(StillroomError, exc.ArgumentError):
    """
    A base or a model is declared in a way that would not do what it says.
    """
