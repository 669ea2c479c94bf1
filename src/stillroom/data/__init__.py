"""Loads files of data into databases, dumps databases to files, and does things once in the life of a database."""

from __future__ import annotations

from stillroom.data.dumping import Dumped, dump
from stillroom.data.errors import DataFileError, DataLocked, RowRefused
from stillroom.data.loading import Loaded, load
from stillroom.data.runs import once

__all__ = ["DataFileError", "DataLocked", "Dumped", "Loaded", "RowRefused", "dump", "load", "once"]
