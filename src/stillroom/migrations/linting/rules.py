"""The rules: what each is about, which lock or loss it means on which server, and the safe way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .actions import Action

__all__ = ["RULES", "Rule", "Severity"]

Severity = Literal["error", "warning", "style"]


@dataclass(frozen=True)
class Rule:
    """
    A rule.

    Attributes:
        id: Its name, as waivers write it.
        severity: "error" stops the running application or loses data, "warning" may, "style" is a matter of years.
        reasons: What happens, by server ("postgresql", "mysql" for MariaDB too, "sqlite", or "any"); the rule holds
            only on servers that are named.
        remedy: The safe way.
        on: The kinds of actions that it looks at; none where it looks at revisions as a whole.
        needs: Flags without which it is silent.
        unless: Flags with which it is silent.
        new_tables: It also looks at tables that the same revision makes.
    """

    id: str
    severity: Severity
    reasons: Mapping[str, str]
    remedy: str
    on: tuple[str, ...] = ()
    needs: frozenset[str] = field(default=frozenset())
    unless: frozenset[str] = field(default=frozenset())
    new_tables: bool = False

    def reason(self, backend: str) -> str | None:
        """
        Say what happens on a server; None where the rule does not hold there.
        """
        return self.reasons.get(backend, self.reasons.get("any"))

    def fires(self, action: Action, flags: frozenset[str]) -> bool:
        """
        Say whether an action is what the rule is about.

        Args:
            action: The action.
            flags: Its own, "autocommit", "new" for what the same revision made, and others that its place gives it.
        """
        if action.kind not in self.on or ("new" in flags and not self.new_tables):
            return False
        return self.needs <= flags and not self.unless & flags


def _rule(
    name: str,
    severity: Severity,
    remedy: str,
    on: str = "",
    *,
    needs: str = "",
    unless: str = "",
    new_tables: bool = False,
    **reasons: str,
) -> Rule:
    return Rule(
        name,
        severity,
        reasons,
        remedy,
        tuple(on.split()),
        frozenset(needs.split()),
        frozenset(unless.split()),
        new_tables,
    )


_COPY = "copies the whole table (ALGORITHM=COPY, LOCK=SHARED): nobody writes to it until that is done"
_NEW_COLUMN = "add a new column, fill it in batches, and let the code change over before the old one goes"
_EXPAND = "let the code stop using the old name first: add the new one, use both, drop the old one in a later release"

_RULES = [
    # --- locks, rewrites and scans
    _rule(
        "index-not-concurrent", "error",
        "postgresql_concurrently=True inside `with op.get_context().autocommit_block():`, in a revision of its own",
        "create_index", unless="concurrently",
        postgresql="takes a SHARE lock: nobody writes to the table while the index is built",
    ),
    _rule(
        "concurrently-in-transaction", "error",
        "put it inside `with op.get_context().autocommit_block():`",
        "create_index drop_index", needs="concurrently", unless="autocommit", new_tables=True,
        postgresql="fails: CONCURRENTLY cannot run inside a transaction",
    ),
    _rule(
        "concurrent-without-if-not-exists", "warning",
        "drop the index before it with if_exists=True, also concurrently; or at least if_not_exists=True, and look for "
        "indexes that are not valid",
        "create_index", needs="concurrently autocommit", unless="if_exists dropped_before",
        postgresql="a build that fails leaves an index that is not valid, over which the next attempt stumbles",
    ),
    _rule(
        "drop-index-not-concurrent", "warning",
        "postgresql_concurrently=True inside `with op.get_context().autocommit_block():`",
        "drop_index", unless="concurrently",
        postgresql="takes an ACCESS EXCLUSIVE lock on the table: it waits for readers, and everybody waits behind it",
    ),
    _rule(
        "index-blocks-writes", "error",
        "run it when nobody writes, or on a replica first",
        "create_index", needs="blocking",
        mysql="FULLTEXT and SPATIAL indexes are built under LOCK=SHARED: nobody writes to the table meanwhile",
    ),
    _rule(
        "change-column-type", "error", _NEW_COLUMN + "; existing_type tells the rule what is a mere widening",
        "alter_type", unless="safe",
        postgresql="takes an ACCESS EXCLUSIVE lock and writes the table and its indexes anew: nobody reads or "
        "writes it meanwhile",
        mysql=_COPY,
    ),
    _rule(
        "set-not-null", "error",
        "a CHECK (column IS NOT NULL) with postgresql_not_valid=True, VALIDATE CONSTRAINT in a later revision, then "
        "NOT NULL, which believes the check (PostgreSQL 12 and later)",
        "set_not_null", unless="checked",
        postgresql="takes an ACCESS EXCLUSIVE lock while it scans the whole table; fails where there are NULLs",
        mysql="writes the table anew (ALGORITHM=INPLACE); fails on NULLs, or fills them outside strict mode",
    ),
    _rule(
        "add-column-volatile-default", "error",
        "add the column without the default, set the default afterwards, and fill old rows in batches",
        "add_column", needs="volatile",
        postgresql="takes an ACCESS EXCLUSIVE lock and writes the table anew, for each row gets a value of its own",
        mysql=_COPY,
    ),
    _rule(
        "add-stored-generated", "error", "compute it in a query or a view, or fill a plain column in batches",
        "add_column", needs="stored",
        postgresql="takes an ACCESS EXCLUSIVE lock and writes the table anew",
        mysql=_COPY,
    ),
    _rule(
        "add-autoincrement", "error", "add a plain column, fill it in batches, then give it a sequence as its default",
        "add_column", needs="autoincrement",
        postgresql="takes an ACCESS EXCLUSIVE lock and writes the table anew, for each row gets its number",
        mysql="numbers the rows under LOCK=SHARED: nobody writes to the table meanwhile",
    ),
    _rule(
        "add-column-with-fk", "error",
        "add the column alone, then the foreign key with postgresql_not_valid=True, and VALIDATE CONSTRAINT in a later "
        "revision",
        "add_column", needs="fk",
        postgresql="takes an ACCESS EXCLUSIVE lock on the table, and a SHARE ROW EXCLUSIVE lock on the one that it "
        "refers to, while it checks the rows",
        mysql=_COPY,
    ),
    _rule(
        "add-column-unique", "error",
        "add the column alone, then a unique index with postgresql_concurrently=True",
        "add_column", needs="unique",
        postgresql="builds an index under an ACCESS EXCLUSIVE lock: nobody reads or writes the table meanwhile",
    ),
    _rule(
        "fk-without-not-valid", "error",
        "postgresql_not_valid=True, and VALIDATE CONSTRAINT in a later revision; MariaDB: with foreign_key_checks = 0 "
        "it is done in place, and the old rows are not checked",
        "add_fk", unless="not_valid",
        postgresql="takes SHARE ROW EXCLUSIVE locks on both tables while it checks every row: nobody writes to them",
        mysql=_COPY,
    ),
    _rule(
        "check-without-not-valid", "error",
        "postgresql_not_valid=True, and VALIDATE CONSTRAINT in a later revision",
        "add_check", unless="not_valid",
        postgresql="takes an ACCESS EXCLUSIVE lock while it scans the whole table",
        mysql=_COPY,
    ),
    _rule(
        "unique-constraint-builds-index", "error",
        "a unique index with postgresql_concurrently=True first, then ADD CONSTRAINT ... UNIQUE USING INDEX",
        "add_unique", unless="using_index",
        postgresql="builds an index under an ACCESS EXCLUSIVE lock: nobody reads or writes the table meanwhile",
    ),
    _rule(
        "primary-key-builds-index", "error",
        "a unique index with postgresql_concurrently=True first, then ADD CONSTRAINT ... PRIMARY KEY USING INDEX",
        "add_primary_key", unless="using_index",
        postgresql="builds an index under an ACCESS EXCLUSIVE lock: nobody reads or writes the table meanwhile",
    ),
    _rule(
        "exclusion-constraint", "error", "run it when nobody uses the table: there is no way to do it beside others",
        "add_exclusion",
        postgresql="builds an index under an ACCESS EXCLUSIVE lock: nobody reads or writes the table meanwhile",
    ),
    _rule(
        "validate-in-same-transaction", "error", "VALIDATE CONSTRAINT in a revision of its own",
        "validate", needs="same_transaction",
        postgresql="the lock of the ADD CONSTRAINT before it is held while the whole table is scanned",
    ),
    _rule(
        "rewriting-sql", "error", "run it when nobody uses the table; REINDEX has CONCURRENTLY",
        "rewrite",
        postgresql="writes tables or indexes anew under a lock that nobody works beside",
        mysql=_COPY,
    ),
    # --- what is lost, or breaks what runs
    _rule(
        "drop-table", "error", "let the code stop using it first, and drop it in a later release; have a backup",
        "drop_table", any="the data are gone, and code that still runs fails",
    ),
    _rule(
        "drop-column", "error", "let the models stop mapping it first, and drop it in a later release",
        "drop_column", any="the data are gone, and code that still maps the column fails with every SELECT",
    ),
    _rule(
        "rename-table", "error", _EXPAND + "; or leave a view under the old name",
        "rename_table", any="code that still runs uses the old name, and fails",
    ),
    _rule(
        "rename-column", "error", _EXPAND,
        "rename_column", any="code that still runs uses the old name, and fails",
    ),
    _rule(
        "rename-schema", "error", _EXPAND,
        "rename_schema", any="code that still runs uses the old name, and fails",
    ),
    _rule(
        "still-mapped", "error", "take it out of the models, release that, and drop it afterwards",
        any="the models still map it, so this very code fails after the revision",
    ),
    _rule(
        "truncate", "error", "delete what is to go, in batches",
        "truncate", any="empties a table, under an ACCESS EXCLUSIVE lock on PostgreSQL and as DDL on MariaDB",
    ),
    _rule(
        "drop-cascade", "error", "name and drop what depends on it, one by one",
        "drop_cascade", any="CASCADE drops whatever depends on it, which may be more than anybody thought of",
    ),
    _rule(
        "destructive-sql", "error", "say with WHERE what is to go; drop databases and schemas by hand",
        "drop_database", any="everything in it is gone",
    ),
    _rule(
        "add-required-column", "error",
        "give it a server_default, or let it be nullable, fill it, and make it NOT NULL in a later revision",
        "add_column", needs="required",
        any="fails where the table has rows, and so does the INSERT of code that still runs",
        mysql="old rows get 0 or an empty text, and the INSERT of code that still runs fails",
    ),
    _rule(
        "drop-not-null", "warning", "let every reader of the column expect None first",
        "drop_not_null", any="code that reads the column, and never saw None in it, may get it now",
    ),
    _rule(
        "python-default-ignored-by-ddl", "warning", "server_default=..., or fill old rows in batches",
        "add_column", needs="python_default", any="default= is Python's: old rows get NULL, as do INSERTs of others",
    ),
    _rule(
        "identifier-too-long", "error", "shorten the name", new_tables=True,
        postgresql="PostgreSQL cuts names after 63 bytes, without a word in SQL; SQLAlchemy refuses them",
        mysql="MariaDB refuses names of more than 64 characters",
    ),
    # --- what is wrong with a revision as a whole
    _rule(
        "data-change-in-ddl-revision", "warning", "put the change of data into a revision of its own, in batches",
        postgresql="the locks of the DDL are held while rows are changed",
        mysql="DDL commits: if a later statement fails, the change of data stays or is half done",
    ),
    _rule(
        "enum-add-value-in-tx", "warning", "put it inside `with op.get_context().autocommit_block():`",
        "add_enum_value", unless="autocommit", new_tables=True,
        postgresql="PostgreSQL before 12 refuses it in a transaction; later the value cannot be used before its commit",
    ),
    _rule(
        "mixed-transactional", "warning", "put what runs in an autocommit_block into a revision of its own",
        postgresql="a failure rolls back only what is outside of the autocommit_block: half of the revision stays",
    ),
    _rule(
        "several-ddl-in-revision", "warning", "one DDL statement in a revision",
        mysql="MariaDB commits each DDL statement: a failure leaves those before it, half of the revision",
    ),
    _rule(
        "no-downgrade", "warning", "write it, or let it raise an error that says why there is none",
        any="downgrade() is missing or does nothing: going back would only forget the revision",
    ),
    _rule(
        "unlintable", "warning", "use operations instead of op.get_bind(); else look with --trace, and waive it",
        any="what the revision does is known only where a database answers it",
    ),
    _rule(
        "waiver", "warning", "write `# stillroom: allow RULE -- reason` at the operation",
        any="a waiver has no effect",
    ),
    # --- what is a matter of years
    _rule(
        "index-too-wide", "style", "index the columns that select most of the rows away",
        "create_index", needs="wide", unless="unique",
        any="an index of more than three columns costs with every write, and is seldom used as a whole",
    ),
    _rule(
        "json-not-jsonb", "warning", "postgresql.JSONB, or sa.JSON().with_variant(postgresql.JSONB(), 'postgresql')",
        "add_column create_table", needs="json", new_tables=True,
        postgresql="the type json has no equality, so SELECT DISTINCT fails, and no index helps to search it",
    ),
    _rule(
        "naive-timestamp", "style", "sa.DateTime(timezone=True)",
        "add_column create_table", needs="naive", new_tables=True,
        postgresql="a timestamp without time zone means another moment for each reader's zone",
    ),
    _rule(
        "int-primary-key", "style", "sa.BigInteger",
        "create_table", needs="int_key", new_tables=True,
        postgresql="an integer key ends at 2,147,483,647, and to change it later writes the table anew",
        mysql="an integer key ends at 2,147,483,647, and to change it later copies the table",
    ),
    _rule(
        "utf8mb3", "style", "utf8mb4",
        "create_table", needs="utf8mb3", new_tables=True,
        mysql="the character set utf8 is utf8mb3 there: it cannot keep emoji and other characters of four bytes",
    ),
]  # fmt: skip

RULES: Mapping[str, Rule] = {each.id: each for each in _RULES}
"""Every rule by its id."""
