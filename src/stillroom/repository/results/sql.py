"""SQL files with named queries, read by aiosql: each query stands wherever a `text()` does."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import TextClause

from ...errors import InvalidSQLFile, MissingExtra, UnknownQuery

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["NamedQuery", "Queries", "load_sql"]


class NamedQuery(TextClause):
    """
    A query of a file, `users.rows(queries.grown_ups, age=18)`: SQLAlchemy's `text()`, with a name.

    Its docstring is the comment that stands above it in the file.

    Attributes:
        name: What follows `-- name:` in the file.
        parameters: The names behind colons, in the order of the text.
    """

    inherit_cache = True

    def __init__(self, name: str, sql: str, parameters: tuple[str, ...] = (), documentation: str = "") -> None:
        super().__init__(sql)
        self.name = name
        self.parameters = parameters
        self.__doc__ = documentation

    def __repr__(self) -> str:
        return f"<NamedQuery {self.name}({', '.join(self.parameters)})>"

    def given(self, values: Mapping[str, Any]) -> TextClause:
        """
        Return the query with the values of its parameters.

        Raises:
            TypeError: One has no value, or a value has no parameter.
        """
        unknown = [name for name in values if name not in self.parameters]
        missing = [name for name in self.parameters if name not in values]
        if missing or unknown:
            takes = ", ".join(map(repr, self.parameters)) or "none"
            wrong = f"lacks {', '.join(map(repr, missing))}" if missing else f"has no {', '.join(map(repr, unknown))}"
            raise TypeError(f"the query {self.name!r} {wrong}; its parameters are {takes}, given by name")
        return self.bindparams(**values)


class Queries(Mapping[str, NamedQuery]):
    """
    The named queries of a file or a directory: `queries.grown_ups`, or `queries["grown_ups"]`.
    """

    def __init__(self, queries: Mapping[str, NamedQuery], source: str) -> None:
        self._queries = dict(queries)
        self._source = source

    def __getitem__(self, name: str) -> NamedQuery:
        try:
            return self._queries[name]
        except KeyError:
            near = difflib.get_close_matches(name, self._queries, n=1)
            known = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, self._queries)) or 'none'}"
            raise UnknownQuery(f"{self._source!r} has no query {name!r}; {known}") from None

    def __getattr__(self, name: str) -> NamedQuery:
        if name.startswith("__"):  # asked for by copy and pickle, before there are any queries
            raise AttributeError(name)
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._queries]

    def __repr__(self) -> str:
        return f"<Queries of {self._source!r}: {', '.join(map(repr, self._queries.values()))}>"


def load_sql(path: str | PathLike[str]) -> Queries:
    """
    Read the named queries of a file of SQL, or of all files `*.sql` in a directory and below it.

    In a directory, a query of `reports/daily.sql` has the name "reports.daily.NAME".

    Args:
        path: The file or the directory.

    Raises:
        MissingExtra: aiosql is not installed.
        FileNotFoundError: There is no such file.
        InvalidSQLFile: A query has no valid name or no text, or two have one name.
    """
    root = Path(path)
    files = sorted(root.rglob("*.sql")) if root.is_dir() else [root]
    queries: dict[str, NamedQuery] = {}
    for file in files:
        inside = file.relative_to(root).with_suffix("").parts if root.is_dir() else ()
        for query in _read(file):
            query.name = ".".join([*inside, query.name])
            if query.name in queries:
                raise InvalidSQLFile(f"{str(file)!r} has two queries with the name {query.name!r}; rename one")
            queries[query.name] = query
    return Queries(queries, str(path))


def _read(file: Path) -> Iterator[NamedQuery]:
    try:
        from aiosql.query_loader import QueryLoader
        from aiosql.utils import VAR_REF, SQLParseException
    except ImportError as error:
        raise MissingExtra("aiosql is not installed, which reads SQL files", extra="sql", name="aiosql") from error

    class Reader:
        """
        What aiosql calls a driver's adapter.
        """

        def process_sql(self, query_name: str, op_type: Any, sql: str) -> str:
            # A colon in quotes is text, and text() would take what follows for a parameter.
            return VAR_REF.sub(lambda found: found[0] if found["var_name"] else found[0].replace(":", "\\:"), sql)

    loader = QueryLoader(Reader(), None, mandatory_parameters=False)  # type: ignore[arg-type]  # no driver is called
    try:
        found = loader.load_query_data_from_file(file, encoding="utf-8")
    except SQLParseException as error:
        raise InvalidSQLFile(f"{str(file)!r} cannot be read: {error}") from error
    for each in found:
        parameters = tuple(each.signature.parameters)[1:] if each.signature is not None else ()  # without `self`
        yield NamedQuery(each.query_name, each.sql.rstrip().removesuffix(";"), parameters, each.doc_comments)
