"""
What a statement may do to those who use the database meanwhile: its lock, what it destroys.

Told from the text alone, so rather too much than too little.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Step", "assess"]


@dataclass(frozen=True)
class Step:
    """
    One statement of a revision.

    Attributes:
        sql: The statement.
        lock: The strongest lock on a table that it may take, in the server's words; empty for none that matters.
        risks: What to think of before it runs.
    """

    sql: str
    lock: str
    risks: tuple[str, ...] = ()


class _Rule(NamedTuple):
    pattern: re.Pattern[str]
    postgresql: str
    mariadb: str


def _rule(pattern: str, postgresql: str, mariadb: str = "") -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE | re.DOTALL), postgresql, mariadb or postgresql)


_ALL = "ACCESS EXCLUSIVE"
_WRITES = "SHARE ROW EXCLUSIVE"
_LIGHT = "SHARE UPDATE EXCLUSIVE"
_ROWS = "ROW EXCLUSIVE"
_METADATA = "exclusive metadata lock"

# The first that fits counts. https://www.postgresql.org/docs/current/explicit-locking.html,
# https://mariadb.com/kb/en/metadata-locking/; MariaDB takes its lock for any change of a table, if only for a moment.
_LOCKS = (
    _rule(r"(begin|commit|set|select|show)\b", "", ""),
    _rule(r"(create|drop)\s+(unique\s+)?index\s+concurrently\b", _LIGHT, _METADATA),
    _rule(r"create\s+(unique\s+|fulltext\s+|spatial\s+)?index\b", "SHARE", _METADATA),
    _rule(r"create\s+table\b.*\breferences\b", _WRITES, _METADATA),
    _rule(r"create\s+(or\s+replace\s+)?(trigger|constraint\s+trigger)\b", _WRITES, _METADATA),
    _rule(r"create\s+or\s+replace\s+view\b", _ALL, _METADATA),
    _rule(r"create\s+(temp\w*\s+|unlogged\s+)?(table|view|type|schema|sequence|extension|domain|role|user)\b", "", ""),
    _rule(r"(create|drop)\s+(or\s+replace\s+)?(function|procedure|type|schema|sequence|extension)\b", "", ""),
    _rule(r"alter\s+(type|sequence|function|role|database)\b", "", ""),
    _rule(r"alter\s+table\b.*\bvalidate\s+constraint\b", _LIGHT, _METADATA),
    _rule(r"alter\s+table\b.*\badd\s+(constraint\s+\S+\s+)?foreign\s+key\b", _WRITES, _METADATA),
    _rule(r"refresh\s+materialized\s+view\s+concurrently\b", "EXCLUSIVE"),
    _rule(r"(comment|analyze|vacuum)\b(?!.*\bfull\b)", _LIGHT, _METADATA),
    _rule(r"reindex\b.*\bconcurrently\b", _LIGHT),
    _rule(r"(insert|update|delete|merge|copy|replace)\b", _ROWS, "row locks"),
    _rule(r"(grant|revoke)\b", ""),
)

_ANEW, _SCAN, _FIT = "may write the whole table anew", "reads the whole table", "fails if rows do not fit"
_NO_DATA = r"constraint|default|not\b|identity|expression|index|foreign|primary|check"
_RISKS = (
    ("destroys data", r"(drop\s+(table|database|schema|materialized)|truncate)\b"),
    ("destroys data", rf"alter\s+table\b.*\bdrop\s+(?!{_NO_DATA})"),
    ("destroys data", r"delete\b"),
    ("changes every row", r"update\b(?!.*\bwhere\b)"),
    ("deletes every row", r"delete\b(?!.*\bwhere\b)"),
    ("breaks code that runs now", r"alter\s+table\b.*\brename\b|rename\s+table\b"),
    ("breaks code that runs now", r"drop\s+(table|view)\b|alter\s+table\b.*\bdrop\s+column\b"),
    (_ANEW, r"alter\s+table\b.*\b(alter\s+(column\s+)?\S+\s+(set\s+data\s+)?type|modify|change)\b"),
    (_ANEW, r"alter\s+table\b.*\badd\s+(column\s+)?.*\b(generated|serial|bigserial)\b"),
    (_ANEW, r"(cluster|vacuum\s+.*full|optimize)\b"),
    (_SCAN, r"alter\s+table\b.*\bset\s+not\s+null\b"),
    (_SCAN, r"alter\s+table\b.*\badd\s+(constraint\b.*)?(check|foreign\s+key)\b(?!.*\bnot\s+valid\b)"),
    (_SCAN, r"alter\s+table\b.*\b(validate\s+constraint|add\s+(constraint\s+\S+\s+)?(unique|primary))\b"),
    (_SCAN, r"create\s+(unique\s+)?index\b"),
    (_FIT, r"alter\s+table\b.*\b(set\s+not\s+null|add\s+constraint|add\s+(unique|check|foreign))\b"),
    (_FIT, r"create\s+unique\s+index\b"),
)  # fmt: skip
_COMPILED = tuple((text, re.compile(pattern, re.IGNORECASE | re.DOTALL)) for text, pattern in _RISKS)


def assess(statement: str, backend: str) -> Step:
    """
    Say what a statement may lock and destroy, from its text alone.

    Args:
        statement: The SQL; one statement.
        backend: "postgresql", "mysql" (for MariaDB too) or "sqlite".
    """
    text = statement.strip()
    risks = dict.fromkeys(name for name, pattern in _COMPILED if pattern.match(text))
    return Step(text, _lock(text, backend), tuple(risks))


def _lock(text: str, backend: str) -> str:
    position = 1 if backend == "postgresql" else 2
    found = next((rule[position] for rule in _LOCKS if rule.pattern.match(text)), None)
    if backend == "sqlite":
        # One writer at a time, whatever it writes; readers go on in WAL.
        return "" if re.match(r"(begin|commit|select|pragma)\b", text, re.IGNORECASE) else "writers of the whole file"
    if found is None:
        return _ALL if backend == "postgresql" else _METADATA
    return str(found)
