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
from .errors import MigrationError, MigrationLocked, MigrationsFailed, NoMigrations, RevisionFailed, RevisionRefused
from .inspecting import EXIT_CODES, Finding, Known, Planned, Standing, check, history, plan, sql, status
from .options import Options
from .running import Outcome, downgrade, stamp, upgrade, wait
from .writing import Written, init, merge, revision

__all__ = [
    "EXIT_CODES",
    "Finding",
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
    "Standing",
    "Written",
    "check",
    "downgrade",
    "history",
    "init",
    "merge",
    "plan",
    "revision",
    "run_env",
    "sql",
    "stamp",
    "status",
    "upgrade",
    "wait",
]
