"""Reads what SQL does, as far as its keywords tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from stillroom.secrets import mask_text

from .actions import Action, key

__all__ = ["read_sql", "volatile"]

LONGEST = 100
"""Characters of a statement that are shown."""

_NAME = r'(?:(?:"[^"]+"|`[^`]+`|[\w$]+)\.)?(?:"[^"]+"|`[^`]+`|[\w$]+)'
_NOISE = re.compile(r"('(?:[^']|'')*')|(\$\w*\$).*?\2|--[^\n]*|/\*.*?\*/", re.DOTALL)
_VOLATILE = {
    # Functions that give each row a value of its own, so that the rows must be written.
    "postgresql": r"\b(random\w*|clock_timestamp|gen_random_uuid|uuid_generate_\w+|uuidv[47]|nextval|timeofday)\s*\(",
    "mysql": r"\b(uuid|uuid_v[47]|uuid_short|sys_guid|nextval)\s*\(|\bnext value for\b",
}
_TABLE_IS_NEXT = r"(?:if (?:not )?exists )?(?:only )?"

Found = tuple[str, str, str, str, set[str]]
"""Kind, table, name, other, flags."""
Reader = Callable[[re.Match[str], str], Iterator[Found]]


def volatile(default: str, dialect: str) -> bool:
    """
    Say whether a default gives each row a value of its own.
    """
    pattern = _VOLATILE.get("postgresql" if dialect == "postgresql" else "mysql", "")
    return re.search(pattern, default, re.IGNORECASE) is not None


def read_sql(sql: str, dialect: str) -> Iterator[Action]:
    """
    Say what statements do; what is inside a function or a DO block is not seen.

    Args:
        sql: One statement or several.
        dialect: The name of the dialect.
    """
    for number, statement in enumerate(_statements(sql)):
        shown = mask_text(statement)[:LONGEST]
        for kind, table, name, other, flags in _read(statement, dialect):
            yield Action(kind, table, name, other, frozenset(flags), text=shown, statement=str(number))


def _statements(sql: str) -> list[str]:
    """
    Split SQL into statements, without comments and the inside of texts.
    """
    bare = _NOISE.sub(lambda found: "''" if found[0][0] in "'$" else " ", sql)
    return [statement for part in bare.split(";") if (statement := " ".join(part.split()))]


def _read(statement: str, dialect: str) -> Iterator[Found]:
    for pattern, reader in _READERS:
        found = pattern.match(statement)
        if found is not None:
            yield from reader(found, dialect)
            return
    yield ("other", "", "", "", set())


def _plain(name: str | None) -> str:
    """
    Return a name as `MetaData.tables` has it: without quotes, in small letters where it was not quoted.
    """
    parts = re.findall(r'"[^"]+"|`[^`]+`|[\w$]+', name or "")
    bare = [part[1:-1] if part[0] in '"`' else part.lower() for part in parts]
    return key(bare[-1], bare[-2] if len(bare) > 1 else None) if bare else ""


def _create_table(found: re.Match[str], dialect: str) -> Iterator[Found]:
    rest = found["rest"].lower()
    flags = set()
    if re.search(r"\bjson\b(?!\s*\()", rest):
        flags.add("json")
    if re.search(r"\btimestamp\b(?!(\(\d\))? with time zone)", rest):
        flags.add("naive")
    if re.search(r"charset\s*=?\s*utf8(mb3)?\b|character set\s*=?\s*utf8(mb3)?\b", rest):
        flags.add("utf8mb3")
    if re.search(
        r"\b(int|integer|serial|smallint|smallserial)(\(\d+\))?( not null)?( auto_increment)? primary key", rest
    ):
        flags.add("int_key")
    if dialect != "postgresql":
        flags -= {"json", "naive"}
    yield ("create_table", _plain(found["table"]), "", "", flags)


def _create_index(found: re.Match[str], dialect: str) -> Iterator[Found]:
    flags = {flag for flag in ("unique", "concurrently") if found[flag]}
    if found["exists"]:
        flags.add("if_exists")
    if found["blocking"]:
        flags.add("blocking")
    inside = re.search(r"\((.*)\)", found["rest"])
    if inside and len(_split(inside[1])) > 3:
        flags.add("wide")
    yield ("create_index", _plain(found["table"]), _plain(found["name"]), "", flags)


def _drop_index(found: re.Match[str], dialect: str) -> Iterator[Found]:
    flags = {"concurrently"} if found["concurrently"] else set()
    yield ("drop_index", _plain(found["table"]), _plain(found["name"]), "", flags)


def _drop_tables(found: re.Match[str], dialect: str) -> Iterator[Found]:
    for table in found["tables"].split(","):
        yield ("drop_table", _plain(table), "", "", set())
    yield from _cascade(found["cascade"], dialect)


def _cascade(cascade: str | None, dialect: str) -> Iterator[Found]:
    if cascade and dialect == "postgresql":  # MariaDB takes the word, and does nothing about it
        yield ("drop_cascade", "", "", "", set())


def _data(found: re.Match[str], dialect: str) -> Iterator[Found]:
    verb = found["verb"].split()[0].lower()
    flags = {"everything"} if verb == "delete" and not re.search(r"\bwhere\b", found[0], re.IGNORECASE) else set()
    yield ("data", _plain(found["table"]), verb, "", flags)


def _with(found: re.Match[str], dialect: str) -> Iterator[Found]:
    writes = re.search(
        rf"\b(?P<verb>insert into|update|delete from) (?:only )?(?P<table>{_NAME})", found[0], re.IGNORECASE
    )
    if writes:
        yield ("data", _plain(writes["table"]), writes["verb"].split()[0].lower(), "", set())
    else:
        yield ("other", "", "", "", set())


def _truncate(found: re.Match[str], dialect: str) -> Iterator[Found]:
    for table in found["tables"].split(","):
        yield ("truncate", _plain(table), "", "", set())
    yield from _cascade(found["cascade"], dialect)


def _only(kind: str) -> Reader:
    """
    Return a reader of what the pattern tells alone.
    """

    def reader(found: re.Match[str], dialect: str) -> Iterator[Found]:
        groups = found.groupdict()
        yield (kind, _plain(groups.get("table")), _plain(groups.get("name")), _plain(groups.get("other")), set())
        yield from _cascade(groups.get("cascade"), dialect)

    return reader


def _alter_table(found: re.Match[str], dialect: str) -> Iterator[Found]:
    table = _plain(found["table"])
    for clause in _split(found["rest"]):
        for pattern, reader in _CLAUSES:
            inner = pattern.match(clause)
            if inner is not None:
                for kind, _, name, other, flags in reader(inner, dialect):
                    yield (kind, table, name, other, flags)
                break
        else:
            yield ("alter_table", table, "", "", set())


def _split(text: str) -> list[str]:
    """
    Split at the commas that are not inside parentheses.
    """
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _add_constraint(found: re.Match[str], dialect: str) -> Iterator[Found]:
    kinds = {"foreign": "add_fk", "check": "add_check", "unique": "add_unique", "primary": "add_primary_key"}
    kind = kinds.get(found["kind"].split()[0].lower(), "add_exclusion")
    rest = found["rest"].lower()
    flags = {"not_valid"} if re.search(r"\bnot valid$", rest) else set()
    if re.search(r"\busing index\b", rest):
        flags.add("using_index")
    yield (kind, "", _plain(found["name"]), found["rest"], flags)


def _add_index(found: re.Match[str], dialect: str) -> Iterator[Found]:
    yield ("create_index", "", "", "", {"blocking"} if found["blocking"] else set())


def _add_column(found: re.Match[str], dialect: str) -> Iterator[Found]:
    rest = found["rest"].lower()
    patterns = {
        "fk": r"\breferences\b",
        "unique": r"\bunique\b",
        "autoincrement": r"\b(big|small)?serial\b|\bas identity\b|\bauto_increment\b",
        "json": r"^json\b(?!b)",
        "naive": r"^timestamp\b(?!(\(\d\))? with time zone)",
        "stored": r"\bgenerated always as\b.*\b(stored|persistent)\b"
        if dialect == "postgresql"
        else r"\bas\s*\(.*\)\s*(stored|persistent)\b",
    }
    flags = {flag for flag, pattern in patterns.items() if re.search(pattern, rest)}
    if dialect != "postgresql":
        flags -= {"json", "naive"}
    default = re.search(r"\bdefault\b(.*)", rest)
    if default and volatile(default[1], dialect):
        flags.add("volatile")
    generated = flags & {"autoincrement", "stored"} or " as (" in rest
    if re.search(r"\bnot null\b", rest) and not default and not generated:
        flags.add("required")
    yield ("add_column", "", _plain(found["name"]), "", flags)
    if re.search(r"\bcheck\s*\(", rest):
        yield ("add_check", "", "", "", set())


def _change(found: re.Match[str], dialect: str) -> Iterator[Found]:
    """
    Read MariaDB's MODIFY and CHANGE, which say the whole column anew: what they change is not told.
    """
    name, other = _plain(found["name"]), _plain(found.groupdict().get("other"))
    if other and other != name:
        yield ("rename_column", "", name, other, set())
    yield ("alter_type", "", name, "from a type that SQL does not tell", set())


_T, _N, _O = rf"(?P<table>{_NAME})", rf"(?P<name>{_NAME})", rf"(?P<other>{_NAME})"
_TABLES = rf"(?P<tables>{_NAME}(?:\s*,\s*{_NAME})*)"
_CONSTRAINT = rf"(?:constraint (?:if not exists )?(?!(?:foreign|check|unique|primary)\b){_N} )?"
_INDEX = (
    r"(?:or replace )?(?:(?P<unique>unique) |(?P<blocking>fulltext|spatial) )?index (?P<concurrently>concurrently )?"
)
_CASCADE = r"(?:.*\b(?P<cascade>cascade)\b)?"


def _compiled(readers: list[tuple[str, Reader]]) -> list[tuple[re.Pattern[str], Reader]]:
    return [(re.compile(pattern, re.IGNORECASE), reader) for pattern, reader in readers]


_CLAUSES = _compiled(
    [
        (
            rf"add {_CONSTRAINT}(?P<kind>foreign key|check|unique(?: key| index)?|primary key|exclude)\b(?P<rest>.*)",
            _add_constraint,
        ),
        (r"add (?:(?P<blocking>fulltext|spatial)\b|index\b|key\b)", _add_index),
        (rf"add (?:column )?(?:if not exists )?{_N} (?P<rest>.*)", _add_column),
        (rf"drop constraint (?:if exists )?{_N}{_CASCADE}", _only("drop_constraint")),
        (r"drop primary key", _only("rewrite")),
        (rf"drop (?:index|key) (?:if exists )?{_N}", _only("drop_index")),
        (rf"drop foreign key (?:if exists )?{_N}", _only("drop_constraint")),
        (rf"drop (?:column )?(?:if exists )?{_N}{_CASCADE}", _only("drop_column")),
        (rf"rename (?:constraint|index|key) {_N}", _only("alter_table")),
        (rf"rename (?:to |as ){_O}", _only("rename_table")),
        (rf"rename (?:column )?(?:if exists )?{_N} to {_O}", _only("rename_column")),
        (rf"alter (?:column )?{_N} set not null", _only("set_not_null")),
        (rf"alter (?:column )?{_N} drop not null", _only("drop_not_null")),
        (rf"alter (?:column )?{_N} (?:set data )?type ", _only("alter_type")),
        (rf"modify (?:column )?(?:if exists )?{_N} ", _change),
        (rf"change (?:column )?(?:if exists )?{_N} {_O} ", _change),
        (rf"validate constraint {_N}", _only("validate")),
        (r"set (?:tablespace|logged|unlogged|access method)\b", _only("rewrite")),
        (r"convert to character set\b", _only("rewrite")),
    ]
)

_READERS = _compiled(
    [
        (
            rf"create (?:(?:global|local|temp|temporary|unlogged|or replace) )*table {_TABLE_IS_NEXT}{_T}(?P<rest>.*)",
            _create_table,
        ),
        (
            rf"create {_INDEX}(?P<exists>if not exists )?(?:(?!on ){_N} )?on (?:only )?{_T}(?P<rest>.*)",
            _create_index,
        ),
        (rf"drop index (?P<concurrently>concurrently )?(?:if exists )?{_N}(?: on {_T})?", _drop_index),
        (rf"drop table (?:if exists )?{_TABLES}{_CASCADE}", _drop_tables),
        (rf"drop (?:database|schema) (?:if exists )?{_N}{_CASCADE}", _only("drop_database")),
        (rf"drop (?:\w+ ){{1,2}}?(?:if exists )?{_N}{_CASCADE}", _only("drop_other")),
        (rf"alter table {_TABLE_IS_NEXT}{_T} (?P<rest>.*)", _alter_table),
        (rf"alter schema {_N} rename", _only("rename_schema")),
        (rf"rename table (?:if exists )?{_T} to {_O}", _only("rename_table")),
        (rf"alter type {_N} add value", _only("add_enum_value")),
        (rf"truncate (?:table )?(?:only )?{_TABLES}(?:.*(?P<cascade>\bcascade))?", _truncate),
        (rf"(?P<verb>insert (?:ignore )?into|replace into|update|delete from) (?:only )?{_T}.*", _data),
        (rf"(?P<verb>copy) {_T}.* from\b", _data),
        (r"with\b.*", _with),
        (rf"vacuum\b.*\bfull\b|cluster\b(?: {_NAME})?|reindex (?!.*\bconcurrently\b)", _only("rewrite")),
        (r"(?:create|alter|drop|rename|grant|revoke|comment)\b", _only("ddl")),
    ]
)
