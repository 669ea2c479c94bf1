"""A throwaway database beside another, with nothing in it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec
from sqlalchemy.exc import DBAPIError

from stillroom import Database, Kind, classify

from ..errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["throwaway"]

LONGEST = 40
"""Characters of the database's name that the other's begins with; PostgreSQL's names have up to 63."""


@contextmanager
def throwaway(database: Database) -> Iterator[Database]:
    """
    Make an empty database on the server of another, and drop it at the end; the other one is not connected to.

    Raises:
        MigrationError: Its user may not create databases.
    """
    settings = database.settings
    # Who makes the database owns it, and only its owner may make tables in it.
    url = settings.admin_url or settings.migration_url or settings.url
    name = f"{(settings.url.database or database.name)[:LONGEST]}_lint_{uuid4().hex[:12]}"
    copied = msgspec.structs.replace(
        settings,
        url=url.set(database=name),
        replicas=(),
        migration_url=None,
        pooler=False,
        disposable=True,
        depends_on=(),
        verify_commit=False,
    )
    copy = Database(copied, name=database.name, application=f"{database.application} lint")
    try:
        copy.create()
    except DBAPIError as error:
        if classify(error) is not Kind.PERMISSION_DENIED:
            raise
        raise MigrationError(
            f"the user {url.username!r} of the database {database.name!r} may not create databases, and tracing needs "
            f"a throwaway one: ALTER ROLE {url.username} CREATEDB, or name an administrator in the setting "
            f"databases.{database.name}.admin_url, or trace against another server"
        ) from error
    try:
        yield copy
    finally:
        copy.drop()
