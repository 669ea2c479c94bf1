"""Asks PostgreSQL what the transaction under way holds, wrote anew and read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Snapshot", "TakenLock", "locks_of", "rows", "take"]

_RELATIONS = """
select c.oid, c.oid::regclass::text, c.relkind, pg_relation_filenode(c.oid), i.indrelid,
       case when c.relkind in ('r', 'm', 'p')
            then pg_stat_get_numscans(c.oid) + coalesce(pg_stat_get_xact_numscans(c.oid), 0) end
from pg_class c left join pg_index i on i.indexrelid = c.oid
where c.relkind in ('r', 'p', 'm', 'v', 'i', 'I')
  and c.relnamespace not in (select oid from pg_namespace where nspname ~ '^pg_' or nspname = 'information_schema')
"""
# What holds the lock on a table that was dropped has no name any more, so names are those from before.
_LOCKS = """
select relation, mode from pg_locks
where locktype = 'relation' and granted and pid = {pid}
  and database = (select oid from pg_database where datname = current_database())
"""
# https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES, the weakest first.
_MODES = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)


@dataclass(frozen=True)
class TakenLock:
    """
    A lock that a statement took.

    Attributes:
        relation: The table or index, with its schema where that is not in the search path.
        mode: As PostgreSQL's pg_locks names it, such as "AccessExclusiveLock".
    """

    relation: str
    mode: str

    @property
    def strength(self) -> int:
        """
        Its place among the modes, from 0, AccessShareLock, to 7, AccessExclusiveLock.
        """
        return _MODES.index(self.mode) if self.mode in _MODES else 0


@dataclass(frozen=True)
class Relation:
    """
    A table or an index, and the state of its file.
    """

    name: str
    kind: str
    file: int | None
    table: int | None
    scans: int

    @property
    def is_index(self) -> bool:
        """
        Whether it is an index.
        """
        return self.table is not None


@dataclass(frozen=True)
class Snapshot:
    """
    What was there, and what was held, at one moment.
    """

    relations: dict[int, Relation] = field(default_factory=dict)
    locks: frozenset[tuple[int, str]] = frozenset()

    def rewritten_since(self, before: Snapshot, known: Snapshot) -> tuple[str, ...]:
        """
        Return the known tables that have another file than before.
        """
        return tuple(
            known.relations[oid].name
            for oid, each in sorted(self.relations.items())
            if oid in known.relations and not each.is_index and each.file != before.relations[oid].file
        )

    def scanned_since(self, before: Snapshot, known: Snapshot) -> tuple[str, ...]:
        """
        Return the known tables that were read from their beginning to their end.
        """
        return tuple(
            known.relations[oid].name
            for oid, each in sorted(self.relations.items())
            if oid in known.relations and not each.is_index and each.scans > before.relations[oid].scans
        )

    def built_since(self, before: Snapshot, known: Snapshot) -> tuple[str, ...]:
        """
        Return the indexes of known tables that have a file which was not there before.

        An index that fits a column's new type is made anew by PostgreSQL, but keeps its file.
        """
        files = {each.file for each in before.relations.values()}
        return tuple(
            each.name
            for _, each in sorted(self.relations.items())
            if each.table in known.relations and each.file and each.file not in files
        )


def named(locks: frozenset[tuple[int, str]], known: Snapshot) -> tuple[TakenLock, ...]:
    """
    Return locks by name, the strongest first.
    """
    found = [TakenLock(known.relations[oid].name, mode) for oid, mode in locks if oid in known.relations]
    return tuple(sorted(found, key=lambda each: (-each.strength, each.relation)))


def rows(driver: Any, sql: str) -> list[Any]:
    """
    Ask over the driver's connection, of which SQLAlchemy's events know nothing.
    """
    cursor = driver.cursor()
    try:
        cursor.execute(sql)
        return list(cursor.fetchall())
    finally:
        cursor.close()


def take(driver: Any) -> Snapshot:
    """
    Look at what is there and what this connection's transaction holds.
    """
    return Snapshot(dict(_relations(driver)), locks_of(driver, "pg_backend_pid()"))


def locks_of(driver: Any, pid: str) -> frozenset[tuple[int, str]]:
    """
    Return the locks on relations that a session holds, as pairs of relation and mode.
    """
    return frozenset((int(relation), mode) for relation, mode in rows(driver, _LOCKS.format(pid=pid)))


def _relations(driver: Any) -> Iterator[tuple[int, Relation]]:
    for oid, name, kind, file, table, scans in rows(driver, _RELATIONS):
        letter = kind.decode() if isinstance(kind, bytes) else str(kind)
        yield int(oid), Relation(name, letter, file and int(file), table and int(table), int(scans or 0))
