"""Cleaning on PostgreSQL: one question that finds what changed, one statement that puts it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, IntegrityError

from stillroom.classification import Kind, classify

from ..connection import execute
from ..errors import TestingError
from ..leaks import Leak
from ..quoting import literal
from .base import GRACE, KEPT, wait_for
from .server import ATTEMPTS, ENDING, ServerCleaner, rows

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from stillroom import Database

    from .tracking import Tracker

__all__ = ["PostgreSQLCleaner"]

_OURS = (
    "c.relpersistence <> 't' and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_' "
    "and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid "
    "and d.deptype = 'e')"
)
_IS_TABLE = (
    f"c.relkind in ('r', 'p') and not c.relispartition and c.relname not in ({', '.join(map(repr, KEPT))}) "
    f"and has_table_privilege(c.oid, 'SELECT') and has_table_privilege(c.oid, 'DELETE') and {_OURS}"
)
_TABLES = f"""
select c.oid::bigint, case when c.relkind = 'r' then 'only ' else '' end || format('%I.%I', n.nspname, c.relname),
  array(select quote_ident(a.attname) from pg_attribute a
   where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' order by a.attnum),
  array(select quote_ident(a.attname) from pg_attribute a where a.attrelid = c.oid and a.attidentity = 'a'),
  array(select quote_ident(a.attname) from pg_attribute a join pg_index i on a.attnum = any (i.indkey)
   where a.attrelid = c.oid and i.indrelid = c.oid and i.indisprimary),
  array(select k.conrelid::bigint from pg_constraint k where k.contype = 'f' and k.confrelid = c.oid),
  array(select quote_ident(t.tgname) from pg_trigger t
   where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled in ('O', 'A')),
  array(select quote_ident(t.tgname) from pg_trigger t
   where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled = 'A')
from pg_class c join pg_namespace n on n.oid = c.relnamespace where {_IS_TABLE} order by c.oid
"""
_SEQUENCES = f"""
select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
where case c.relkind when 'S' then has_sequence_privilege(c.oid, 'SELECT')
and has_sequence_privilege(c.oid, 'UPDATE') end and {_OURS} order by c.oid
"""
_WHICH = (
    "(select string_agg(c.oid::text, ' ' order by c.oid) from pg_class c join pg_namespace n on n.oid = c.relnamespace "
    f"where {_IS_TABLE})"
)
_SESSIONS = """
select pid, coalesce(application_name, ''), coalesce(state, ''), left(query, 200) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
and xact_start is not null
union all select 0, gid, '', '' from pg_prepared_xacts where database = current_database()
"""
_MARK = "t.tableoid || '/' || t.ctid || '/' || t.xmin"
"""The same as long as nobody has touched a row."""


@dataclass(frozen=True)
class _Table:
    """
    A table, with names as they are written in a statement.

    Attributes:
        oid: Its number in the catalogue.
        name: Its name, behind "only" where others may inherit from it.
        columns: The columns that are stored.
        fixed: Those whose values the server alone gives (identity).
        key: The columns of the primary key.
        referrers: The tables that refer to it.
        triggers: The triggers that are on.
        always: Those of them that are on in any case.
    """

    oid: int
    name: str
    columns: list[str]
    fixed: list[str]
    key: list[str]
    referrers: list[int]
    triggers: list[str]
    always: list[str]

    @property
    def plain(self) -> str:
        return self.name.removeprefix("only ")

    @property
    def copy(self) -> str:
        return f"stillroom_seed_{self.oid}"

    @property
    def same(self) -> str:
        """
        The condition for a row of the table and one of the copy to be the same row.
        """
        if not self.key:
            return f"k.stillroom_mark = {_MARK}"
        return " and ".join(f"k.{column} = t.{column}" for column in self.key)

    def making_copy(self) -> list[str]:
        columns = ", ".join(f"t.{column}" for column in self.columns)
        return [
            f"drop table if exists pg_temp.{self.copy}",
            f"create temporary table {self.copy} as select {_MARK} as stillroom_mark, {columns} from {self.name} t",
            f"analyze {self.copy}",
        ]

    def marking(self) -> list[str]:
        """
        Return what brings the marks of the copy up to date, after its rows were put back.
        """
        if not self.key:
            return self.making_copy()
        return [f"update {self.copy} k set stillroom_mark = {_MARK} from {self.name} t where {self.same}"]

    def deleting(self, *, keep: bool) -> str:
        kept = f" t where not exists (select from {self.copy} k where {self.same})" if keep else ""
        return f"delete from {self.name}{kept}"

    def updating(self) -> str:
        columns = [each for each in self.columns if each not in self.key and each not in self.fixed]
        if not columns or not self.key:
            return ""
        values = ", ".join(f"{column} = k.{column}" for column in columns)
        return f"update {self.name} t set {values} from {self.copy} k where {self.same} and k.stillroom_mark <> {_MARK}"

    def inserting(self, *, all_rows: bool) -> str:
        columns = ", ".join(self.columns)
        missing = "" if all_rows else f" where not exists (select from {self.name} t where {self.same})"
        return (
            f"insert into {self.plain} ({columns}) overriding system value select {columns} from {self.copy} k{missing}"
        )


class PostgreSQLCleaner(ServerCleaner):
    """
    Cleans a PostgreSQL database.

    Seeds are kept in temporary tables of the cleaning connection, so that nothing is seen of them in the database. That
    one changed shows in the number of its rows and the sum of their transaction ids.
    """

    settings = ("set lock_timeout = '2s'", "set row_security = off", "set client_min_messages = error")

    def __init__(self, database: Database, tracker: Tracker, *, sequences: bool) -> None:
        super().__init__(database, tracker)
        self._with_sequences = sequences
        self._tables: list[_Table] = []
        self._which: str | None = None
        self._seeds: dict[int, str] = {}
        self._sequences: list[str] = []
        self._positions: list[str] = []
        self._question = ""

    # --- the start

    def _note(self, connection: Connection) -> None:
        self._read_tables(connection)
        if self._with_sequences:
            self._sequences = [row[0] for row in rows(connection, _SEQUENCES)]
        self._seeds = {}
        changed = self._ask(connection)
        self._seeds = dict.fromkeys(changed.tables, "")
        for table in self._seeded():
            for statement in table.making_copy():
                execute(connection, statement)
        self._has_copies = True
        self._remember(connection)

    def _remember(self, connection: Connection) -> None:
        """
        Note how the seeds and the sequences stand now.
        """
        self._question = ""
        answer = self._ask(connection)
        self._seeds = dict(zip(self._seeds, answer.marks, strict=True))
        self._positions = answer.positions

    def _read_tables(self, connection: Connection) -> None:
        self._question = ""
        self._tables = [table for table in (_Table(*row) for row in rows(connection, _TABLES)) if table.columns]
        self._which = rows(connection, f"select {_WHICH}")[0][0]

    # --- what changed

    def _ask(self, connection: Connection) -> _Answer:
        """
        Ask in one statement which tables have rows that they should not have, and which seeds and sequences changed.
        """
        if not self._question:
            by_oid = {table.oid: table for table in self._tables}
            found = [f"exists (select from {table.name})" for table in self._tables if table.oid not in self._seeds]
            marks = [
                f"(select count(*) || ' ' || coalesce(sum(xmin::text::bigint), 0) from {by_oid[oid].name})"
                for oid in self._seeds
            ]
            positions = [f"(select last_value || ' ' || is_called from {name})" for name in self._sequences]
            self._question = (
                f"select {_WHICH}, array[{', '.join(found)}]::boolean[], array[{', '.join(marks)}]::text[], "
                f"array[{', '.join(positions)}]::text[]"
            )
        which, found_now, marks_now, positions_now = rows(connection, self._question)[0]
        empty = [table.oid for table in self._tables if table.oid not in self._seeds]
        dirty = {oid for oid, is_found in zip(empty, found_now, strict=True) if is_found}
        changed = {oid for (oid, mark), now in zip(self._seeds.items(), marks_now, strict=True) if mark and mark != now}
        return _Answer(which, dirty | changed, changed, list(marks_now), list(positions_now))

    # --- the end

    def clean(self) -> list[Leak]:
        leaks: list[Leak] = []
        for attempt in range(ATTEMPTS):
            try:
                leaks += self._run(self._end_transactions)
                self._run(self._clean)
            except DBAPIError as error:
                if attempt == ATTEMPTS - 1:
                    raise
                if classify(error) is not Kind.LOCK_TIMEOUT and not error.connection_invalidated:
                    self._run(self._read_again)  # a table or a sequence is gone, or has become another
            else:
                break
        return leaks

    def _clean(self, connection: Connection) -> None:
        answer = self._ask(connection)
        if answer.which != self._which:
            self._read_again(connection)
            answer = self._ask(connection)
        if answer.changed:
            self._require_copies()
        self._restore(connection, answer)
        if not self._has_copies:
            self._note(connection)
        elif answer.changed:
            self._remember(connection)

    def _restore(self, connection: Connection, answer: _Answer) -> None:
        others = [table for table in self._tables if table.oid in answer.tables - answer.changed]
        seeded = [table for table in self._tables if table.oid in answer.changed]
        if not seeded:
            self._send_all(connection, _in_one([table.deleting(keep=False) for table in others]), others, answer)
            return
        try:
            self._send_all(connection, _differences(others, seeded), [*others, *seeded], answer)
        except IntegrityError:  # two rows changed places under a unique constraint, which one statement cannot undo
            seeded = self._with_referrers(seeded)
            steps = _in_one([table.deleting(keep=False) for table in [*others, *seeded]])
            steps += _in_one([table.inserting(all_rows=True) for table in seeded])
            self._send_all(connection, steps, [*others, *seeded], answer)
        for table in seeded:
            for statement in table.marking():
                execute(connection, statement)

    def _seeded(self) -> list[_Table]:
        return [table for table in self._tables if table.oid in self._seeds]

    def _read_again(self, connection: Connection) -> None:
        """
        Read the tables anew after a test that made or dropped some.
        """
        self._read_tables(connection)
        if self._with_sequences:
            known = dict(zip(self._sequences, self._positions, strict=True))
            self._sequences = [row[0] for row in rows(connection, _SEQUENCES)]
            self._positions = [known.get(name, "") for name in self._sequences]
        self._require_tables(self._seeds, [table.oid for table in self._tables])

    def _with_referrers(self, tables: list[_Table]) -> list[_Table]:
        """
        Add the seeded tables that refer to some, directly or not.
        """
        seeded = {table.oid: table for table in self._seeded()}
        found: dict[int, _Table] = {}
        left = [table.oid for table in tables]
        while left:
            oid = left.pop()
            if oid in seeded and oid not in found:
                found[oid] = seeded[oid]
                left += seeded[oid].referrers
        return list(found.values())

    def _send_all(self, connection: Connection, steps: list[str], tables: list[_Table], answer: _Answer) -> None:
        """
        Send the steps in one round trip and one transaction, with the triggers of the tables off.
        """
        triggers = [(table.plain, name, name in table.always) for table in tables for name in table.triggers]
        steps = [*(f"alter table {table} disable trigger {name}" for table, name, _ in triggers), *steps]
        if triggers:
            steps.append("set constraints all immediate")  # what is pending would forbid to alter the table
        steps += [f"alter table {table} enable {'always ' * always}trigger {name}" for table, name, always in triggers]
        for name, before, now in zip(self._sequences, self._positions, answer.positions, strict=True):
            if before and before != now:
                value, _, is_called = before.partition(" ")
                steps.append(f"perform setval({literal(name)}, {value}, {is_called})")
        if steps:
            execute(connection, f"do $stillroom$ begin {'; '.join(steps)}; end $stillroom$")

    # --- transactions

    def _end_transactions(self, connection: Connection) -> list[Leak]:
        if not rows(connection, _SESSIONS):
            return []
        held = {each.identity: each for each in self.tracker.in_transaction()}
        wait_for(lambda: not rows(connection, _SESSIONS), GRACE)
        leaks = []
        for pid, name, state, query in rows(connection, _SESSIONS):
            if not pid:
                who, where = f"the prepared transaction {name!r}", "neither committed nor rolled back"
                execute(connection, f"rollback prepared {literal(name)}")
            else:
                who, where = f"the session {pid} of {name!r}", f"{state}; its last statement: {' '.join(query.split())}"
                if (mine := held.get(pid)) is not None:
                    who, where = mine.who, f"{mine.where}, {where}"
                execute(connection, f"select pg_terminate_backend({pid})")
            leaks.append(Leak(self.database.name, who, where))
        if leaks and not wait_for(lambda: not rows(connection, _SESSIONS), ENDING):
            raise TestingError(
                f"transactions on the test database {self.database.name!r} do not end: {rows(connection, _SESSIONS)}"
            )
        return leaks


@dataclass(frozen=True)
class _Answer:
    """
    What the question found: tables to clean, the seeded ones among them, and how seeds and sequences stand.
    """

    which: str | None
    tables: set[int]
    changed: set[int]
    marks: list[str]
    positions: list[str]


def _in_one(statements: list[str]) -> list[str]:
    """
    Make one statement of some.

    Foreign keys are checked at the end of each statement, so that the tables need no order, and cycles are no obstacle.
    """
    if not statements:
        return []
    *first, last = statements
    common = ", ".join(f"s{number} as ({each})" for number, each in enumerate(first))
    return [f"with {common} {last}" if first else last]


def _differences(others: list[_Table], seeded: list[_Table]) -> list[str]:
    """
    Make one statement that empties tables, and puts back those rows of seeded ones that differ.

    Foreign keys are checked at its end. Its parts run one after the other, since each waits for a count of the one
    before: a unique value must have gone before it can come back.
    """
    deletes = [table.deleting(keep=False) for table in others] + [table.deleting(keep=True) for table in seeded]
    updates = [update for table in seeded if (update := table.updating())]
    common: list[str] = []
    gate = ""
    for letter, statements in (("d", deletes), ("u", updates)):
        if not statements:
            continue
        names = [f"{letter}{number}" for number in range(len(statements))]
        common += [f"{name} as ({each}{gate} returning 1)" for name, each in zip(names, statements, strict=True)]
        counts = " + ".join(f"(select count(*) from {name})" for name in names)
        common.append(f"{letter}_done as (select {counts} as n)")
        gate = f" and (select n from {letter}_done) is not null"
    inserts = [f"{table.inserting(all_rows=False)}{gate}" for table in seeded]
    common += [f"i{number} as ({each})" for number, each in enumerate(inserts[:-1])]
    return [f"with {', '.join(common)} {inserts[-1]}"]
