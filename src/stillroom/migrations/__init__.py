"""
Migrations of every database of an application: Alembic, with nothing to configure beside the settings.

Importing this loads Alembic; ``import stillroom`` does not.
"""

from __future__ import annotations

try:
    import alembic as _alembic
except ImportError as error:
    from stillroom import MissingExtra

    raise MissingExtra('migrations need Alembic: pip install "stillroom[cli]"') from error
else:
    del _alembic

from .environment import run_env
from .errors import (
    MigrationError,
    MigrationLocked,
    MigrationsFailed,
    NoMigrations,
    RevisionFailed,
    RevisionRefused,
    SqlNotWritten,
    UnfinishedRevision,
    UnknownRevision,
)
from .inspecting import EXIT_CODES, Finding, Known, Planned, Standing, check, history, plan, plan_downgrade, sql, status
from .linting import RULES, Hazard, Rule, TakenLock, TracedStatement, lint, trace
from .options import Options
from .risks import Step
from .running import Outcome, downgrade, stamp, upgrade, wait
from .schema import dump_schema, load_schema, schema_file
from .squashing import squash
from .writing import Written, init, merge, revision

__all__ = [
    "EXIT_CODES",
    "RULES",
    "Finding",
    "Hazard",
    "Known",
    "MigrationError",
    "MigrationLocked",
    "MigrationsFailed",
    "NoMigrations",
    "Options",
    "Outcome",
    "Planned",
    "RevisionFailed",
    "RevisionRefused",
    "Rule",
    "SqlNotWritten",
    "Standing",
    "Step",
    "TakenLock",
    "TracedStatement",
    "UnfinishedRevision",
    "UnknownRevision",
    "Written",
    "check",
    "downgrade",
    "dump_schema",
    "history",
    "init",
    "lint",
    "load_schema",
    "merge",
    "plan",
    "plan_downgrade",
    "revision",
    "run_env",
    "schema_file",
    "sql",
    "squash",
    "stamp",
    "status",
    "trace",
    "upgrade",
    "wait",
]
