"""
Puts the environment's variables into strings: ``${NAME}``, ``${NAME:-default}``, ``$${`` for a literal ``${``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote

__all__ = ["MissingVariable", "Text", "Verbatim", "expand", "expand_url"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEEPEST = 20

_Encode = Callable[[str], str]


class Text(str):
    """
    A string from a source without types (a flat file, a variable): it may spell a number or a boolean.
    """

    __slots__ = ()


class Verbatim(Text):
    """
    A variable's value that is itself a setting: nothing is put into it, for a password may well contain ``${``.
    """

    __slots__ = ()


class MissingVariable(LookupError):
    """
    A string cannot be expanded; the message is safe to be shown. Never leaves the package: it becomes a SettingsError.
    """


class _Part(NamedTuple):
    """
    A piece of a template: literal text, or (with a name) the place of a variable.
    """

    text: str
    name: str | None = None
    default: str | None = None


def expand(template: str, environ: Mapping[str, str]) -> str:
    """
    Put variables into a string.

    Args:
        template: the string as written in the settings.
        environ: the variables.

    Returns:
        The expanded string; a Text if a variable was put in, or if the template was one.

    Raises:
        MissingVariable: a variable is not set and has no default, or a ``${`` is not well formed.
    """
    if isinstance(template, Verbatim) or "${" not in template:
        return template
    parts = _parse(template)
    text = "".join(_value(part, environ) for part in parts)
    return Text(text) if isinstance(template, Text) or any(part.name for part in parts) else text


def expand_url(template: str, environ: Mapping[str, str]) -> str:
    """
    Put variables into a URL, percent-encoded where the URL needs it.

    A variable in the user or the password (before the ``@`` of the template) is taken as it is typed at a prompt and
    is encoded; so is the value of a query argument (``?sslmode=${MODE}``). A variable elsewhere, or one that holds the
    whole URL, is put in as it is. The rules for the parts of a URL are those of RFC 3986, section 3.

    Args:
        template: the URL as written in the settings.
        environ: the variables.

    Returns:
        The URL.

    Raises:
        MissingVariable: as for ``expand``.
    """
    if isinstance(template, Verbatim) or "${" not in template:
        return template
    parts = _parse(template)
    encoders = _encoders(parts)
    return Text("".join(encode(_value(part, environ)) for part, encode in zip(parts, encoders, strict=True)))


def _parse(template: str) -> list[_Part]:
    """
    Split a template into literal text and places of variables.
    """
    parts: list[_Part] = []
    literal, at = "", 0
    while at < len(template):
        if template.startswith("$${", at):
            literal, at = literal + "${", at + 3
        elif template.startswith("${", at):
            end = _closing(template, at)
            parts += [_Part(literal), _variable(template[at + 2 : end])]
            literal, at = "", end + 1
        else:
            literal, at = literal + template[at], at + 1
    return [*parts, _Part(literal)]


def _closing(template: str, start: int) -> int:
    """
    Find the brace that closes the ``${`` at ``start``; a default may hold further variables.
    """
    depth, at = 0, start
    while at < len(template):
        if template.startswith("${", at):
            depth, at = depth + 1, at + 2
            continue
        if template[at] == "}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    # What follows may be a password, so it is not shown.
    raise MissingVariable("a `${` is not closed by `}`; write `$${` for a literal `${`")


def _variable(inside: str) -> _Part:
    """
    Read what stands between the braces.
    """
    name, colon, default = inside.partition(":-")
    if not _NAME.fullmatch(name):
        raise MissingVariable(
            "no name of a variable stands in `${…}`; write ${NAME} or ${NAME:-default}, and `$${` for a literal `${`"
        )
    return _Part("", name, default if colon else None)


def _value(part: _Part, environ: Mapping[str, str], depth: int = 0) -> str:
    """
    Look a variable up. As in a shell, ``:-`` takes the default also where the variable is set but empty.
    """
    if part.name is None:
        return part.text
    value = environ.get(part.name)
    if part.default is None:
        if value is None:
            raise MissingVariable(
                f"the environment has no variable {part.name!r}; set it, or give a default: ${{{part.name}:-default}}"
            )
        return value
    if value:
        return value
    if depth == _DEEPEST:
        raise MissingVariable(f"the defaults of {part.name!r} are nested more than {_DEEPEST} deep")
    return "".join(_value(inner, environ, depth + 1) for inner in _parse(part.default))


def _encoders(parts: list[_Part]) -> list[_Encode]:
    """
    Choose for each part of a URL how a value there is encoded; literal text never is.
    """
    scheme = next((index for index, part in enumerate(parts) if "://" in part.text), None)
    encoders: list[_Encode] = [str] * len(parts)
    if scheme is None:
        return encoders
    after = parts[scheme].text.partition("://")[2]
    texts = ["" if index < scheme else part.text for index, part in enumerate(parts)]
    texts[scheme] = after
    last_of_userinfo = _end_of_userinfo(texts)
    userinfo = "".join(texts[scheme : last_of_userinfo + 1]).partition("@")[0] if last_of_userinfo is not None else ""
    argument: str | None = None
    for index in range(scheme, len(parts)):
        if parts[index].name is None:
            argument = _query_state(texts[index], argument)
        elif last_of_userinfo is not None and index < last_of_userinfo:
            encoders[index] = (
                _encode if ":" in userinfo or _variables(parts, scheme, last_of_userinfo) > 1 else _encode_pair
            )
        elif argument is not None and "=" in argument:
            encoders[index] = _encode
    return encoders


def _variables(parts: list[_Part], start: int, end: int) -> int:
    """
    Count the places of variables between two parts.
    """
    return sum(part.name is not None for part in parts[start:end])


def _end_of_userinfo(texts: list[str]) -> int | None:
    """
    Find the literal part with the ``@`` that ends user and password, which stands before any ``/``, ``?`` or ``#``.
    """
    for index, text in enumerate(texts):
        authority = re.split(r"[/?#]", text, maxsplit=1)[0]
        if "@" in authority:
            return index
        if authority != text:
            return None
    return None


def _query_state(text: str, argument: str | None) -> str | None:
    """
    Follow the literal text into the query, and return the argument that it ends in; None before the query.
    """
    if argument is None:
        _, mark, text = text.partition("?")
        return text.rpartition("&")[2] if mark else None
    return (argument + text).rpartition("&")[2]


def _encode(value: str) -> str:
    """
    Percent-encode everything that is not unreserved.
    """
    return quote(value, safe="")


def _encode_pair(value: str) -> str:
    """
    Percent-encode ``user:password`` that comes from one variable: the first colon stays.
    """
    return ":".join(quote(side, safe="") for side in value.split(":", 1))
