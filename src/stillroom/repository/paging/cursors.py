"""Cursors of pages: a position in an order, as signed text that fits into a URL."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy.engine import Connection

from ...errors import InvalidCursor
from ...sessions import UnitSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL
    from sqlalchemy.orm import Session

    from ..plan import Plan

Way = Literal[">", ">=", "<", "<="]
_WAYS: tuple[Way, ...] = (">", ">=", "<", "<=")

_MAC = 16
"""Bytes of the signature: 128 bits cannot be guessed."""
LONGEST = 8192
"""Characters; a longer text is no cursor, and is not looked at."""

_WRITERS: dict[type[Any], tuple[int, Callable[[Any], str]]] = {
    datetime: (1, datetime.isoformat),
    date: (2, date.isoformat),
    time: (3, time.isoformat),
    Decimal: (4, str),
    UUID: (5, str),
    int: (6, str),
}
_READERS: dict[int, Callable[[str], Any]] = {
    1: datetime.fromisoformat,
    2: date.fromisoformat,
    3: time.fromisoformat,
    4: Decimal,
    5: UUID,
    6: int,
}
_AS_THEY_ARE = (type(None), bool, float, str, bytes)
_WORD = range(-(2**63), 2**63)


class Position(NamedTuple):
    """
    What a cursor says: the values of one row in the order, and which way to go from there.
    """

    way: Way
    values: tuple[Any, ...]

    @property
    def is_backward(self) -> bool:
        """
        Whether it goes towards the beginning.
        """
        return self.way.startswith("<")

    def turned(self) -> Position:
        """
        Return the position for going the other way, with the row itself where this one is without it.
        """
        ways: dict[Way, Way] = {">": "<=", ">=": "<", "<": ">=", "<=": ">"}
        return Position(ways[self.way], self.values)


def write(position: Position, key: bytes, question: bytes) -> str:
    """
    Return the cursor for a position.

    Args:
        position: The position.
        key: What it is signed with.
        question: What it belongs to; signed, and not part of it.

    Raises:
        TypeError: A value is of a type that cursors do not have.
    """
    body = msgspec.msgpack.encode([_WAYS.index(position.way), *map(_outgoing, position.values)])
    return _text(_mac(body, key, question) + body)


def read(cursor: str, key: bytes, question: bytes) -> Position:
    """
    Return the position that a cursor names.

    Raises:
        InvalidCursor: It was changed, or belongs to another question.
    """
    if len(cursor) > LONGEST:
        raise _invalid(cursor)
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):  # the latter for characters beyond ASCII
        raise _invalid(cursor) from None
    mac, body = raw[:_MAC], raw[_MAC:]
    # Base 64 can write the same bytes in several ways; only ours is a cursor.
    if not hmac.compare_digest(mac, _mac(body, key, question)) or _text(raw) != cursor:
        raise _invalid(cursor)
    way, *values = msgspec.msgpack.decode(body, ext_hook=_incoming)
    return Position(_WAYS[way], tuple(values))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _mac(body: bytes, key: bytes, question: bytes) -> bytes:
    # The length keeps the border between the two: otherwise bytes could move from one into the other.
    return hmac.digest(key, len(question).to_bytes(4, "big") + question + body, "sha256")[:_MAC]


def _outgoing(value: Any) -> Any:
    kind = type(value)
    if kind in _AS_THEY_ARE or (kind is int and value in _WORD):
        return value
    for known, (code, writer) in _WRITERS.items():
        if isinstance(value, known):  # asyncpg has a UUID class of its own
            return msgspec.msgpack.Ext(code, writer(value).encode())
    raise TypeError(
        f"no cursor can be made of {value!r}: cursors have numbers, text, bytes, booleans, times and UUIDs; order "
        "by columns of these types"
    )


def _incoming(code: int, data: memoryview) -> Any:
    return _READERS[code](bytes(data).decode())


def _invalid(cursor: str) -> InvalidCursor:
    shown = repr(cursor)
    shown = shown if len(shown) <= 40 else f"{shown[:36]}…{shown[-1]}"
    return InvalidCursor(
        f"{shown} is no cursor of this question: it was changed, or made for another order, model or database; begin "
        "again without a cursor"
    )


def key_of(session: Session, plan: Plan) -> bytes:
    """
    Return what the cursors of a session's database are signed with.

    That is the setting `secret_key`; where it is absent, a key derived from the URL of the database.
    """
    if isinstance(session, UnitSession):
        database = session.unit.declared.database(session.database_name)
        return from_secret(database.secret_key) if database.secret_key is not None else from_url(database.settings.url)
    bind = session.get_bind(plan.mapper)
    return from_url((bind.engine if isinstance(bind, Connection) else bind).url)


@lru_cache(maxsize=64)
def from_secret(secret: str) -> bytes:
    """
    Derive the key from the setting.
    """
    return hmac.digest(secret.encode(), b"stillroom cursors", "sha256")


def from_url(url: URL) -> bytes:
    """
    Derive the key from a URL, whichever driver it names; slow on purpose the first time.
    """
    plain = url.set(drivername=url.get_backend_name())
    return _stretched(plain.render_as_string(hide_password=False))


@lru_cache(maxsize=64)
def _stretched(url: str) -> bytes:
    # The password in the URL may be weak, and every cursor is a chance to try passwords against: scrypt makes each try
    # cost about 50 ms and 16 MiB (the parameters of RFC 7914, section 2, for interactive use).
    return hashlib.scrypt(url.encode(), salt=b"stillroom cursors", n=2**14, r=8, p=1, dklen=32)


def database_of(session: Session, plan: Plan) -> str:
    """
    Return the name of the database that a session is on, as far as it is known.
    """
    return session.database_name if isinstance(session, UnitSession) else plan.database or ""
