"""How test databases and their templates are called: recognisable, short enough, one for each run and worker."""

from __future__ import annotations

import re
from hashlib import sha256
from itertools import pairwise

__all__ = ["TEST_WORDS", "base_name", "clone_name", "is_test_name", "says_production", "slot_name", "template_name"]

TEST_WORDS = frozenset({"test", "tests", "testing", "e2e", "ci"})
"""One of them, as a whole word, tells a test database."""
_PRODUCTION_WORDS = frozenset({"production", "prod", "live"})
_NEGATIONS = frozenset({"no", "non", "not"})
_HASH = 8
_KEY = 12


def words(text: str) -> list[str]:
    """
    Split a text at everything that is not a letter or a digit.
    """
    return [word for word in re.split(r"[\W_]+", text.lower()) if word]


def is_test_name(text: str) -> bool:
    """
    Say whether a name has a whole word for tests in it: `shop_test` has, `latest` and `contest` have not.
    """
    return not TEST_WORDS.isdisjoint(words(text))


def says_production(text: str) -> bool:
    """
    Say whether a text names a production environment: `production`, `eu-prod`, but not `non-prod`.
    """
    return any(word in _PRODUCTION_WORDS and before not in _NEGATIONS for before, word in pairwise(["", *words(text)]))


def base_name(name: str, prefix: str | None, database: str) -> str:
    """
    Return what the names of a run's test databases begin with.

    Args:
        name: The name of the database in the settings, such as "main".
        prefix: What the names begin with instead of the database's own; None for that.
        database: The name of the database in its URL.
    """
    base = database if prefix is None else f"{prefix}_{name}"
    return base if is_test_name(base) else f"{base}_test"


def slot_name(base: str, worker: str, slot: int, limit: int) -> str:
    """
    Return the name of a test database.

    Args:
        base: What `base_name` returned.
        worker: Who among several processes uses it; may be empty.
        slot: Which of several runs at once: 1, 2, …
        limit: How many bytes the server allows.
    """
    tail = f"_{worker}_{slot}" if worker else f"_{slot}"
    return _fit(base, tail, limit)


def clone_name(database: str, label: str, limit: int) -> str:
    """
    Return the name of another copy beside a test database.
    """
    return _fit(database, "_" + ("_".join(words(label)) or "clone"), limit)


def template_name(base: str, key: str, limit: int) -> str:
    """
    Return the name of the template with a key; `tpl_` says what it is to whoever lists the databases.
    """
    return _fit(f"tpl_{base}", f"_{key[:_KEY]}", limit)


def _fit(base: str, tail: str, limit: int) -> str:
    """
    Join two parts; where they are too long, cut the first, then the second, and put a hash of all in place of the rest.
    """
    name = f"{base}{tail}"
    if len(name.encode()) <= limit:
        return name
    middle = f"_test_{sha256(name.encode()).hexdigest()[:_HASH]}"
    tail = _cut(tail, limit // 2)
    return f"{_cut(base, limit - len(middle) - len(tail.encode()))}{middle}{tail}"


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")
