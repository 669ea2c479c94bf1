"""
Comparisons of text that mean the same on SQLite, PostgreSQL and MariaDB, whatever the collation and whatever the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Boolean, ColumnElement, Enum, String, func, literal, null
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy.orm import InstrumentedAttribute
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.operators import OperatorType
    from sqlalchemy.types import TypeEngine

__all__ = ["contains", "equals", "equals_ignoring_case", "is_text", "starts_with"]

_ESCAPE = "/"


class _Condition(FunctionElement[bool]):
    """
    A condition that brings its own parentheses.
    """

    inherit_cache = True
    type = Boolean()

    def self_group(self, against: OperatorType | None = None) -> Self:
        """
        Stand in WHERE as it is: SQLAlchemy would write ``(…) = 1`` for servers without booleans, which finds no index.
        """
        return self


class _Same(_Condition):
    """
    ``left = right``, character for character.
    """

    name = "stillroom_same"
    inherit_cache = True


class _Like(_Condition):
    """
    ``text LIKE pattern``, character for character; the third clause is the same pattern in the language of GLOB.
    """

    name = "stillroom_like"
    inherit_cache = True


class _LikeIgnoringCase(_Condition):
    """
    ``lower(text) LIKE lower(pattern)``: letters with other accents are other letters.
    """

    name = "stillroom_like_ignoring_case"
    inherit_cache = True


def _bytes(text: str) -> str:
    # Collations of MariaDB ignore case, accents and spaces at the end. The column may have another character set.
    return f"CAST(CONVERT({text} USING utf8mb4) AS BINARY)"


@compiles(_Same)
def _same(element: _Same, compiler: SQLCompiler, **kw: Any) -> str:
    left, right = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({left} = {right})"


@compiles(_Same, "sqlite")
def _same_sqlite(element: _Same, compiler: SQLCompiler, **kw: Any) -> str:
    left, right = (compiler.process(clause, **kw) for clause in element.clauses)
    # The column may be declared COLLATE NOCASE. The first comparison finds an index of the column's own collation.
    return f"({left} = {right} AND {left} = {right} COLLATE BINARY)"


@compiles(_Same, "mysql", "mariadb")
def _same_mysql(element: _Same, compiler: SQLCompiler, **kw: Any) -> str:
    left, right = (compiler.process(clause, **kw) for clause in element.clauses)
    # The first comparison finds the index, the second one decides.
    return f"({left} = {right} AND {_bytes(left)} = {_bytes(right)})"


@compiles(_Like)
def _like(element: _Like, compiler: SQLCompiler, **kw: Any) -> str:
    text, pattern, _ = element.clauses
    return f"({compiler.process(text, **kw)} LIKE {compiler.process(pattern, **kw)} ESCAPE '{_ESCAPE}')"


@compiles(_Like, "sqlite")
def _like_sqlite(element: _Like, compiler: SQLCompiler, **kw: Any) -> str:
    # SQLite's LIKE ignores the case of ASCII letters; GLOB does not, and finds the index of a prefix.
    text, _, glob = element.clauses
    return f"({compiler.process(text, **kw)} GLOB {compiler.process(glob, **kw)})"


@compiles(_Like, "mysql", "mariadb")
def _like_mysql(element: _Like, compiler: SQLCompiler, **kw: Any) -> str:
    text, pattern = (compiler.process(clause, **kw) for clause in list(element.clauses)[:2])
    exact = f"CONVERT({text} USING utf8mb4) COLLATE utf8mb4_bin"
    return f"({text} LIKE {pattern} ESCAPE '{_ESCAPE}' AND {exact} LIKE {pattern} ESCAPE '{_ESCAPE}')"


@compiles(_LikeIgnoringCase)
def _ilike(element: _LikeIgnoringCase, compiler: SQLCompiler, **kw: Any) -> str:
    text, pattern = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"(lower({text}) LIKE lower({pattern}) ESCAPE '{_ESCAPE}')"


@compiles(_LikeIgnoringCase, "mysql", "mariadb")
def _ilike_mysql(element: _LikeIgnoringCase, compiler: SQLCompiler, **kw: Any) -> str:
    text, pattern = (compiler.process(clause, **kw) for clause in element.clauses)
    exact = f"lower(CONVERT({text} USING utf8mb4)) COLLATE utf8mb4_bin"
    return f"({exact} LIKE lower({pattern}) ESCAPE '{_ESCAPE}')"


def is_text(column_type: TypeEngine[Any]) -> bool:
    """
    Tell whether a column's values are compared as text: not numbers, and not enums, whose values are names.
    """
    if isinstance(column_type, TypeDecorator):
        return is_text(column_type.impl_instance)
    return isinstance(column_type, String) and not isinstance(column_type, Enum)


def equals(column: InstrumentedAttribute[Any], value: object) -> ColumnElement[bool]:
    """
    Compare exactly: ``Ada`` is neither ``ada`` nor ``Ada`` with a space; None finds NULL.
    """
    if value is None:
        return column.is_(null())
    if not is_text(column.type):
        return column == value
    return _Same(column, literal(value, column.type))


def equals_ignoring_case(column: InstrumentedAttribute[Any], value: object) -> ColumnElement[bool]:
    """
    Compare text ignoring case as the server's ``lower()`` knows it (SQLite: ASCII letters only), and nothing else.
    """
    if value is None or not is_text(column.type):
        return equals(column, value)
    return _Same(func.lower(column), func.lower(literal(value, column.type)))


def starts_with(column: InstrumentedAttribute[Any], prefix: str, *, ignoring_case: bool) -> ColumnElement[bool]:
    """
    Compare the beginning of text; every character of the prefix stands for itself.
    """
    return _matches(column, f"{_escaped(prefix)}%", f"{_glob(prefix)}*", ignoring_case=ignoring_case)


def contains(column: InstrumentedAttribute[Any], text: str, *, ignoring_case: bool) -> ColumnElement[bool]:
    """
    Look for text within text; every character stands for itself.
    """
    return _matches(column, f"%{_escaped(text)}%", f"*{_glob(text)}*", ignoring_case=ignoring_case)


def _matches(column: InstrumentedAttribute[Any], like: str, glob: str, *, ignoring_case: bool) -> ColumnElement[bool]:
    # Patterns are plain text, whatever a type of the column's own would make of its values.
    if ignoring_case:
        return _LikeIgnoringCase(column, literal(like, String()))
    return _Like(column, literal(like, String()), literal(glob, String()))


def _escaped(text: str) -> str:
    for character in (_ESCAPE, "%", "_"):
        text = text.replace(character, _ESCAPE + character)
    return text


def _glob(text: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in text)
