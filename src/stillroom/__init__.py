"""The layer between SQLAlchemy and everything that uses it: databases declared once, right everywhere."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .classification import Kind, classify, is_retryable
from .database import Database, ServerStatus
from .databases import Databases
from .errors import (
    AlreadyConfigured,
    BadRow,
    CheckViolation,
    CommitOutcomeUnknown,
    ConcurrentUseError,
    Deadlock,
    Disconnected,
    DiskFull,
    DriverError,
    ExclusionViolation,
    ForeignKeyViolation,
    ForkedConnection,
    HookError,
    InvalidCursor,
    InvalidData,
    InvalidListQuery,
    InvalidSQL,
    InvalidSQLFile,
    LockTimeout,
    MissingDriver,
    MissingExtra,
    MultipleFound,
    MultipleWritesRefused,
    NotConfigured,
    NotDisposable,
    NotFound,
    NotNullViolation,
    NoUnitOfWork,
    PartialCommitError,
    PermissionDenied,
    PoolTimeout,
    PropagationError,
    ReadOnlyError,
    SerializationFailure,
    SettingsError,
    StatementCancelled,
    StatementTimeout,
    StillroomError,
    TooManyConnections,
    TransactionAborted,
    UndefinedColumn,
    UndefinedTable,
    UniqueViolation,
    UnitOfWorkEnded,
    UnitOfWorkTimeout,
    UnknownDatabase,
    UnknownQuery,
)
from .retry import Retry
from .settings import DatabaseSettings, Settings
from .status import SessionRole, Status, UnitOptions
from .unit_of_work import UnitOfWork

if TYPE_CHECKING:
    from .aio import AsyncUnitOfWork
    from .aio.repository import AsyncReadRepository, AsyncRepository, AsyncWriteRepository
    from .repository import ReadRepository, Repository, WriteRepository
    from .two_phase import InDoubt
    from .web import CommitPolicy

__all__ = [
    "AlreadyConfigured",
    "AsyncReadRepository",
    "AsyncRepository",
    "AsyncUnitOfWork",
    "AsyncWriteRepository",
    "BadRow",
    "CheckViolation",
    "CommitOutcomeUnknown",
    "CommitPolicy",
    "ConcurrentUseError",
    "Database",
    "DatabaseSettings",
    "Databases",
    "Deadlock",
    "Disconnected",
    "DiskFull",
    "DriverError",
    "ExclusionViolation",
    "ForeignKeyViolation",
    "ForkedConnection",
    "HookError",
    "InDoubt",
    "InvalidCursor",
    "InvalidData",
    "InvalidListQuery",
    "InvalidSQL",
    "InvalidSQLFile",
    "Kind",
    "LockTimeout",
    "MissingDriver",
    "MissingExtra",
    "MultipleFound",
    "MultipleWritesRefused",
    "NoUnitOfWork",
    "NotConfigured",
    "NotDisposable",
    "NotFound",
    "NotNullViolation",
    "PartialCommitError",
    "PermissionDenied",
    "PoolTimeout",
    "PropagationError",
    "ReadOnlyError",
    "ReadRepository",
    "Repository",
    "Retry",
    "SerializationFailure",
    "ServerStatus",
    "SessionRole",
    "Settings",
    "SettingsError",
    "StatementCancelled",
    "StatementTimeout",
    "Status",
    "StillroomError",
    "TooManyConnections",
    "TransactionAborted",
    "UndefinedColumn",
    "UndefinedTable",
    "UniqueViolation",
    "UnitOfWork",
    "UnitOfWorkEnded",
    "UnitOfWorkTimeout",
    "UnitOptions",
    "UnknownDatabase",
    "UnknownQuery",
    "WriteRepository",
    "classify",
    "is_retryable",
]
__version__ = "0.1.0"


# Imported on demand: some need greenlet, the others are not needed by every program that imports this package.
_ON_DEMAND = {
    "AsyncReadRepository": ".aio.repository",
    "AsyncRepository": ".aio.repository",
    "AsyncUnitOfWork": ".aio",
    "AsyncWriteRepository": ".aio.repository",
    "CommitPolicy": ".web",
    "InDoubt": ".two_phase",
    "ReadRepository": ".repository",
    "Repository": ".repository",
    "WriteRepository": ".repository",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ON_DEMAND[name], __name__), name)
