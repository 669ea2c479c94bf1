"""What a statement means in a transaction that is shared: told from its text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

Action = Literal[
    "", "begin", "commit", "rollback", "savepoint", "release", "rollback to", "set local", "read only", "ignore"
]


@dataclass(frozen=True, slots=True)
class Statement:
    """
    What is to be done with a statement.

    Attributes:
        writes: It may write, so it needs the transaction for itself.
        action: It is not sent, but interpreted.
        name: What the action is about: a savepoint, a setting, "on" or "off"; for BEGIN "read only" or "immediate".
        text: What to send, for an action that is sent later.
        refused: Why it cannot run in a shared transaction; empty where it can.
        calls: The functions it calls, in lower case.
        changes_schema: It may change the schema.
        answers: It is an action that answers with a value.
        sets: It changes a setting of the session.
        configures: What it may set with `set_config` until the end of the transaction; see `configured`.
    """

    writes: bool = False
    action: Action = ""
    name: str = ""
    text: str = ""
    refused: str = ""
    calls: AbstractSet[str] = frozenset()
    changes_schema: bool = False
    asks_read_only: bool = False
    answers: bool = False
    sets: bool = False
    configures: AbstractSet[str] = frozenset()


_COMMENT = re.compile(r"\s*(?:--[^\n]*(?:\n|$)|/\*(?!!).*?\*/|;)", re.DOTALL)
_LITERAL = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|/\*.*?\*/|--[^\n]*", re.DOTALL)
_REMARK = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)
_DOLLAR_QUOTED = re.compile(r"(\$\w*\$).*?\1", re.DOTALL)
_CONTROLS_INSIDE = re.compile(
    r";\s*(commit|abort|rollback|savepoint|release|begin|start\s+transaction|end|prepare\s+transaction)\b"
)
_NOT_ATOMIC = re.compile(r"begin\s+not\s+atomic\b", re.IGNORECASE)
"""The beginning of a block of MariaDB's, which begins no transaction."""
_ROUTINE = re.compile(r"create\b[^;]*?\b(function|procedure|trigger)\b", re.IGNORECASE)
_CALL = re.compile(r"([a-z_][a-z0-9_$]*)\s*\(")
_WORD = re.compile(r"[a-z_]+")
_NAME = r'(?P<name>"(?:[^"]|"")+"|`[^`]+`|[\w$]+)'
_SAVEPOINTS: tuple[tuple[Action, re.Pattern[str]], ...] = (
    ("rollback to", re.compile(rf"rollback\s+(?:work\s+|transaction\s+)?to\s+(?:savepoint\s+)?{_NAME}", re.IGNORECASE)),
    ("release", re.compile(rf"release\s+(?:savepoint\s+)?{_NAME}", re.IGNORECASE)),
    ("savepoint", re.compile(rf"savepoint\s+{_NAME}", re.IGNORECASE)),
)
_ENDS = re.compile(r"(commit|end|rollback|abort)(\s+(work|transaction|and\s+no\s+chain))*\s*;?\s*$", re.IGNORECASE)
_BEGINS = re.compile(r"(begin|start\s+transaction)\b(?P<how>.*)", re.IGNORECASE | re.DOTALL)
_SET_LOCAL = re.compile(
    r"set\s+local\s+(?:(?P<name>[\w.]+)\s*(?:=|to\b)|(?P<words>role|schema|time\s+zone|session\s+authorization)\b)",
    re.IGNORECASE,
)
_SET_IN_WORDS = {
    "role": "role",
    "schema": "search_path",
    "time zone": "timezone",
    "session authorization": "session_authorization",
}
"""Settings that SET also knows by words of their own."""
_SETTING = re.compile(r"[a-z_]\w*(\.\w+)*", re.IGNORECASE)
_QUOTED = re.compile(r"'((?:[^']|'')*)'")
_FOR_SESSION = re.compile(r",\s*(?:false|'f(?:alse)?')\s*\)", re.IGNORECASE)
_SET_READ_ONLY = re.compile(r"set\s+session\s+transaction\s+read\s+(?P<how>only|write)\s*$", re.IGNORECASE)
_PRAGMA = re.compile(r"pragma\s+(?:\w+\.)?(?P<name>\w+)\s*(?P<value>[=(].*)?", re.IGNORECASE | re.DOTALL)
_WRITING_WORDS = frozenset({"insert", "update", "delete", "merge", "into", "nextval"})
_READS = frozenset(
    {"select", "with", "values", "table", "show", "explain", "describe", "desc", "pragma", "fetch", "help"}
)
_SETS = frozenset({"set", "reset", "use", "unlisten", "deallocate", "discard"})
_SCHEMA = frozenset({"create", "alter", "drop", "truncate", "rename", "reindex", "comment", "grant", "revoke", "do"})
_OF_SET_UP = frozenset({"busy_timeout", "journal_mode", "synchronous", "foreign_keys", "query_only", "locking_mode"})

_REMEDY = 'Use isolation="clone" or isolation="committed" for this test'
_ENDING = ("commit", "end", "rollback", "abort")
_SEVERAL = (
    "a text of several statements that begins or ends a transaction cannot run in the sandbox, where all of the test "
    'is one transaction. Send the statements one by one, or use isolation="committed" for this test'
)
_REFUSED = {
    "postgresql": re.compile(
        r"(create|drop)\s+(unique\s+)?index\s+concurrently|reindex\b.*\bconcurrently|vacuum|(create|drop)\s+database|"
        r"(create|drop)\s+tablespace|alter\s+system|listen\b|prepare\s+transaction|(commit|rollback)\s+prepared|"
        r"discard\s+all|cluster\s*$|alter\s+table\b.*\bdetach\s+partition\b.*\bconcurrently|refresh\s+materialized\s+"
        r"view\s+concurrently",
        re.IGNORECASE | re.DOTALL,
    ),
    "mysql": re.compile(
        r"(create|drop)\s+(?!temporary\b)|alter|truncate|rename|lock\s+tables?|unlock\s+tables|(analyze|check|optimize|"
        r"repair)\s+(local\s+|no_write_to_binlog\s+)?table|flush|grant|revoke|set\s+password|xa\b|load\s+index|cache\s+"
        r"index|(un)?install|reset|change\s+master|(start|stop)\s+(slave|replica)",
        re.IGNORECASE,
    ),
    "sqlite": re.compile(r"vacuum|attach|detach", re.IGNORECASE),
}


@lru_cache(maxsize=2000)
def parse(text: str, dialect: str) -> Statement:
    """
    Tell what a statement means.

    Args:
        text: The statement.
        dialect: "postgresql", "mysql" or "sqlite".
    """
    text = _bare(text)
    first = _WORD.match(text[:40].lower())
    word = first.group() if first is not None else ""
    if text.startswith("/*!"):  # MariaDB runs it
        return Statement(writes=True)
    if found := _several(text, word) or _control(text, word, dialect):
        return found
    refused = _REFUSED[dialect].match(text)
    if refused is not None:
        return Statement(refused=_why_not(refused.group(), dialect))
    if word == "set" or word in _SETS:
        return _setting(text, dialect)
    if word == "pragma":
        return _pragma(text)
    if word and word not in _READS:
        return Statement(writes=True, changes_schema=word in _SCHEMA)
    plain = _LITERAL.sub("''", text).lower()
    words = set(_WORD.findall(plain))
    writes = bool(words & _WRITING_WORDS) or (word == "explain" and "analyze" in words)
    if "for" in words and not writes:
        writes = (
            re.search(r"\bfor\s+(no\s+key\s+update|update|share|key\s+share)\b|\bnext\s+value\s+for\b", plain)
            is not None
        )
    return Statement(writes=writes, calls=frozenset(_CALL.findall(plain)), asks_read_only="read_only" in text.lower())


def configured(text: str, parameters: Any) -> frozenset[str]:
    """
    Return all that may be the name of a setting, in a statement that calls PostgreSQL's `set_config`.

    Args:
        text: The statement.
        parameters: Its parameters, by name or by position.
    """
    values = list(parameters.values() if isinstance(parameters, Mapping) else parameters)
    if _FOR_SESSION.search(text) or any(value is False for value in values):
        return frozenset()  # it stays after the transaction
    words = [*_QUOTED.findall(text), *(value for value in values if isinstance(value, str))]
    return frozenset(word.lower() for word in words if _SETTING.fullmatch(word))


def _bare(text: str) -> str:
    """
    Leave out comments and blanks at the beginning, and a semicolon at the end.
    """
    while (found := _COMMENT.match(text)) is not None and found.end():
        text = text[found.end() :]
    return text.strip().rstrip(";").rstrip()


def _control(text: str, word: str, dialect: str) -> Statement | None:
    """
    Tell what a statement does to transactions; None where it is about something else.
    """
    plain = _REMARK.sub(" ", text).strip()
    if word in _ENDING and _ENDS.match(plain):
        return Statement(action="commit" if word in ("commit", "end") else "rollback")
    if word in ("rollback", "release", "savepoint"):
        for action, pattern in _SAVEPOINTS:
            if (found := pattern.match(plain)) is not None:
                return Statement(action=action, name=found["name"].strip('"`').lower())
    if word in ("begin", "start") and (found := _BEGINS.match(plain)) is not None:
        if _NOT_ATOMIC.match(plain):
            return Statement(writes=True)
        return Statement(action="begin", name=_how_begun(found["how"].lower(), dialect))
    if word in _ENDING and not plain.lower().startswith(("commit prepared", "rollback prepared")):
        return Statement(refused=_why_not(plain, dialect))
    return None


def _how_begun(how: str, dialect: str) -> str:
    if dialect == "sqlite" and how.strip().startswith(("immediate", "exclusive")):
        return "immediate"
    return "read only" if "read only" in how else ""


def _several(text: str, word: str) -> Statement | None:
    """
    Tell what a text of several statements means; None where it is one.
    """
    if ";" not in text or _ROUTINE.match(text):
        return None
    plain = _LITERAL.sub("''", _DOLLAR_QUOTED.sub("''", text)).lower().rstrip("'; \t\r\n")  # a remark at the end, too
    if ";" not in plain:
        return None
    if _NOT_ATOMIC.match(plain):
        controls = re.search(r"\b(commit|rollback|start\s+transaction)\b", plain) is not None
    else:
        begins = word in (*_ENDING, "savepoint", "release", "begin", "start")
        controls = begins or _CONTROLS_INSIDE.search(plain) is not None
    if controls:
        return Statement(refused=_SEVERAL)
    return Statement(writes=True, changes_schema=not _SCHEMA.isdisjoint(_WORD.findall(plain)))


def _setting(text: str, dialect: str) -> Statement:
    lower = " ".join(text.lower().split())
    if dialect != "mysql" and (found := _SET_LOCAL.match(text)) is not None:  # there LOCAL means SESSION
        name = found["name"] or _SET_IN_WORDS[" ".join(found["words"].lower().split())]
        return Statement(action="set local", name=name.lower(), text=text)
    if (found := _SET_READ_ONLY.match(text)) is not None:
        return Statement(action="read only", name="on" if found["how"].lower() == "only" else "off")
    if lower.startswith(("set transaction", "set session characteristics", "set session transaction")):
        if "read only" in lower and lower.startswith("set transaction"):
            return Statement(action="begin", name="read only")
        return Statement(action="ignore")
    if lower.startswith("set autocommit"):
        return Statement(refused=_why_not("SET autocommit", "mysql"))
    return Statement(writes=lower.startswith("set constraints"), sets=True)


def _pragma(text: str) -> Statement:
    found = _PRAGMA.match(text)
    if found is None:
        return Statement(writes=True)
    name = found["name"].lower()
    value = (found["value"] or "").strip(" =()'\"").lower()
    if name == "query_only" and not found["value"]:
        return Statement(action="ignore", name=name, answers=True)
    if name == "query_only":
        return Statement(action="read only", name="on" if value in ("on", "1", "true", "yes") else "off")
    if name in _OF_SET_UP and found["value"]:
        return Statement(action="ignore")
    return Statement(writes=bool(found["value"]) and found["value"].lstrip().startswith("="))


def _why_not(found: str, dialect: str) -> str:
    shown = " ".join(found.upper().split())
    if dialect == "mysql":
        return f"{shown} cannot run in the sandbox: the server would commit the transaction of the test. {_REMEDY}"
    return f"{shown} cannot run in the sandbox, where all of the test is one transaction. {_REMEDY}"
