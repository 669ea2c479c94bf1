"""What goes wrong with files of data: files that cannot be taken for what they are, and rows that do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillroom import BadRow, StillroomError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DataFileError", "DataLocked", "RowRefused"]


class DataFileError(StillroomError, ValueError):
    """
    A file of data cannot be taken: it cannot be read, or it does not say what its rows are rows of.
    """


class DataLocked(StillroomError, TimeoutError):
    """
    Another process loads into the same database, or runs the same thing once, and did not end in time.
    """


class RowRefused(BadRow):
    """
    A row of a file does not fit; nothing of the load stays.

    Attributes:
        path: The file.
        number: Which of its rows, counted from 1; the header of a CSV file is none.
        column: The column as the file has it, or None where the database does not tell.
        value: What the file says there.
        model: The mapped class.
    """

    def __init__(
        self,
        message: str,
        *,
        path: Path,
        number: int,
        column: str | None = None,
        value: Any = None,
        model: type[Any] | None = None,
    ) -> None:
        super().__init__(message, number=number, column=column, model=model)
        self.path = path
        self.value = value
