"""
Masks passwords in URLs, connection strings, mappings and any text, so that none is ever shown.

In doubt it is masked: a message that loses a host name is a nuisance, one that shows a password is a leak.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from sqlalchemy.engine import URL

__all__ = ["MASK", "is_secret", "mask_mapping", "mask_text", "mask_url", "mask_value"]

MASK = "***"


class _Lazily:
    """
    A pattern that is compiled when it is first used: compiling all of these would be half of `import stillroom`.
    """

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self._pattern = pattern
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        method = getattr(re.compile(self._pattern, self._flags), name)
        self.__dict__[name] = method
        return method


_WORDS = r"pass(?:word|wd|wort|phrase|file|code)?|pwd|pw|secret|token|credentials?|(?:api|private|access|secret)_?key"
_NAME_OF_SECRET = rf"(?:[A-Za-z0-9]+[_.-])*[A-Za-z0-9]*?(?:{_WORDS})(?:[_.-]?(?:file|text|value|\d+))?"

_IS_SECRET = _Lazily(_NAME_OF_SECRET, re.IGNORECASE)

# The scheme's length is bounded so that a long text of word characters costs linear time.
_SCHEME = r"(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9+._-]{0,40}://"
# An address such as [::1] has colons and no password.
_NO_ADDRESS = r"(?!\[[0-9A-Fa-f:.]*\])"

_TOKEN_WITH_URL = _Lazily(r"\S*://\S*@\S*")
_NEXT_URL = _Lazily(rf"(?<=[,;|]){_SCHEME}")
_BEFORE_PASSWORD = _Lazily(rf"{_SCHEME}{_NO_ADDRESS}[^\s:/@]*(?:@[^\s:/@]*)*:")
# An unencoded password with spaces, in a URL of a database: up to the last "@" of the line, unless a port stands there.
_PASSWORD_WITH_SPACES = _Lazily(
    r"((?<![A-Za-z0-9])(?:postgres|postgresql|mysql|mariadb)(?:\+\w{1,40})?://"
    rf"{_NO_ADDRESS}[^\s:/@]*:)(?!\d{{1,5}}(?:[/?\s]|$))[^\s@]{{0,200}}[ \t](?:(?!://)[^\n]){{0,200}}@",
    re.IGNORECASE,
)
_WHOLE_URL = _Lazily(rf"((?!\s*sqlite)[^:]*://{_NO_ADDRESS}[^:]*:).*@", re.DOTALL | re.IGNORECASE)
_NO_URL = _Lazily(r"([^:@]*:)(?!//).*@", re.DOTALL)

_VALUE = r"(?:'(?:[^'\\]|\\.|'')*(?:'|\Z)|\"(?:[^\"\\]|\\.)*(?:\"|\Z)"
_QUERY = _Lazily(rf"([?&]{_NAME_OF_SECRET}=)([^&#\s'\"]*)", re.IGNORECASE)
_ASSIGNED = _Lazily(
    rf"(?<![?&A-Za-z0-9_.-])({_NAME_OF_SECRET}\s{{0,8}}=\s{{0,8}})({_VALUE}|\{{[^}}\n]*\}}|[^\s'\"]\S*))", re.IGNORECASE
)
_ITEM = _Lazily(rf"(['\"]{_NAME_OF_SECRET}['\"]\s{{0,8}}:\s{{0,8}})({_VALUE}|[^\s,}}]+))", re.IGNORECASE)
_IN_SQL = _Lazily(
    r"((?<![A-Za-z0-9])(?:password|identified\s{1,8}by(?:\s{1,8}password)?)\s{1,8})('(?:[^'\\]|\\.|'')*(?:'|\Z))",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """
    Tell whether a key of that name holds a secret.

    Args:
        name: a keyword, such as ``sslpassword`` or ``api_key``.

    Returns:
        True for every name that ends with a word for a secret (password, passfile, pwd, secret, token, …).
    """
    return _IS_SECRET.fullmatch(name) is not None


def mask_url(url: str | URL) -> str:
    """
    Write a URL with its password, and the secrets among its query arguments, as ``***``.

    Args:
        url: any URL, of a database or not, well formed or not: the whole text is taken as one URL.

    Returns:
        The URL, safe to be shown. An unencoded ``@`` in a password hides what stands before the last one.
    """
    text = url.render_as_string(hide_password=True) if isinstance(url, URL) else url
    pattern = _WHOLE_URL if "://" in text else _NO_URL
    return mask_text(pattern.sub(rf"\1{MASK}@", text, count=1) if pattern.match(text) else text)


def mask_text(text: str) -> str:
    """
    Mask every password in a text: in URLs, ``password=…``, mappings shown by repr or as JSON, ``PASSWORD '…'`` of SQL.

    Args:
        text: a log line, an error message, a statement; any length.

    Returns:
        The text with ``***`` in place of each password. A text without one is returned unchanged.
    """
    if "://" in text and "@" in text:
        text = _PASSWORD_WITH_SPACES.sub(rf"\1{MASK}@", text)
        text = _TOKEN_WITH_URL.sub(_mask_token, text)
    return _mask_assignments(text)


def _mask_token(found: re.Match[str]) -> str:
    """
    Mask the URLs in a run of characters without spaces.

    A password that was not percent-encoded may hold ``@``, ``/`` or ``?``: only the last ``@`` is sure to end it.
    """
    token = found.group()
    starts = [0, *(match.start() for match in _NEXT_URL.finditer(token)), len(token)]
    pieces = (token[start:end] for start, end in pairwise(starts))
    return "".join(map(_mask_piece, pieces))


def _mask_piece(piece: str) -> str:
    """
    Mask the password of the first URL in a piece of text, which ends with the last ``@``.
    """
    before, end = _BEFORE_PASSWORD.search(piece), piece.rfind("@")
    if before is None or end < before.end():
        return piece
    return f"{piece[: before.end()]}{MASK}{piece[end:]}"


def mask_value(value: Any) -> Any:
    """
    Copy a value with every secret in it masked, at any depth.

    Args:
        value: text, a URL, a mapping, a sequence; anything else is returned as it is.

    Returns:
        The copy; a URL becomes text.
    """
    if isinstance(value, URL):
        return mask_url(value)
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, Mapping):
        return mask_mapping(value)
    if isinstance(value, (list, tuple)):
        return [mask_value(item) for item in value]
    return value


def mask_mapping(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """
    Copy a mapping with its secrets masked: by the name of the key, and in every text inside.

    Args:
        mapping: for instance ``connect_args``.

    Returns:
        A plain dict, safe to be shown.
    """
    return {
        key: MASK if value is not None and is_secret(str(key)) else mask_value(value) for key, value in mapping.items()
    }


def _mask_assignments(text: str) -> str:
    """
    Mask the secrets that are named by a key beside them.
    """
    if "=" in text:
        text = _QUERY.sub(_mask_assigned, text)
        text = _ASSIGNED.sub(_mask_assigned, text)
    if "'" in text or '"' in text:
        text = _ITEM.sub(_mask_assigned, text)
        text = _IN_SQL.sub(_mask_assigned, text)
    return text


def _mask_assigned(found: re.Match[str]) -> str:
    """
    Keep the key and the quotes.
    """
    key, value = found.group(1, 2)
    quote = value[:1] if value[:1] in {"'", '"'} else ""
    return f"{key}{quote}{MASK}{quote}"
