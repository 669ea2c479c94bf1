"""The layer between SQLAlchemy and everything that uses it: databases declared once, right everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .classification import Kind, classify, is_retryable
from .database import Database, ServerStatus
from .databases import Databases
from .errors import (
    AlreadyConfigured,
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
    InvalidData,
    InvalidSQL,
    LockTimeout,
    MissingDriver,
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
)
from .retry import Retry
from .settings import DatabaseSettings, Settings
from .status import Status, UnitOptions
from .unit_of_work import UnitOfWork

if TYPE_CHECKING:
    from .aio import AsyncUnitOfWork
    from .two_phase import InDoubt

__all__ = [
    "AlreadyConfigured",
    "AsyncUnitOfWork",
    "CheckViolation",
    "CommitOutcomeUnknown",
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
    "InvalidData",
    "InvalidSQL",
    "Kind",
    "LockTimeout",
    "MissingDriver",
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
    "Retry",
    "SerializationFailure",
    "ServerStatus",
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
    "classify",
    "is_retryable",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported on demand: the one needs greenlet, the other is needed by few.
    if name == "AsyncUnitOfWork":
        from .aio import AsyncUnitOfWork

        return AsyncUnitOfWork
    if name == "InDoubt":
        from .two_phase import InDoubt

        return InDoubt
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
