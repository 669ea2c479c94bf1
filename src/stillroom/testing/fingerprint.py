"""What a template depends on, as one text: as long as that is the same, the template is good."""

from __future__ import annotations

import inspect
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Enum, create_mock_engine
from sqlalchemy.schema import CreateIndex, CreateTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType

    from sqlalchemy import MetaData

    from stillroom import Database

    from .options import Schema, Seeds

__all__ = ["fingerprint"]

FORMAT = "1"
"""Changes when templates are made in another way."""
_NOT_SOURCE = {"__pycache__"}


def fingerprint(database: Database, schema: Schema, seeds: Seeds, facts: Iterable[str]) -> str:
    """
    Return the key of a database's template.

    The same state of the sources has the same key, on every machine: going back to it finds its template again.

    Args:
        database: The database of the settings.
        schema: Where its tables come from.
        seeds: What puts rows into it.
        facts: What of its server matters, and the keys of the databases that it depends on.
    """
    whole = sha256()
    for part in _parts(database, schema, seeds, facts):
        data = part if isinstance(part, bytes) else part.encode()
        whole.update(len(data).to_bytes(8, "big") + data)  # with its length, so that parts cannot be taken for others
    return whole.hexdigest()


def _parts(database: Database, schema: Schema, seeds: Seeds, facts: Iterable[str]) -> Iterator[str | bytes]:
    yield from (FORMAT, database.name, database.settings.url.get_backend_name(), schema)
    yield from facts
    yield repr(sorted(database.settings.server_settings.items()))
    if schema == "migrations" and database.settings.migrations is not None:
        yield from _files(Path(database.settings.migrations))
    if schema == "create_all":
        yield from _ddl(database.metadata, database.settings.url.drivername)
    for seed in seeds:
        yield from _function(seed)


def _files(directory: Path) -> Iterator[str | bytes]:
    """
    Yield the files of a directory of migrations: revisions, an environment, hooks, SQL.
    """
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        if path.is_file() and _NOT_SOURCE.isdisjoint(relative.parts) and not path.name.startswith("."):
            yield relative.as_posix()
            yield path.read_bytes()


def _ddl(metadata: MetaData, drivername: str) -> Iterator[str]:
    """
    Yield the statements of `create_all`, those of listeners among them where these need no server.
    """
    statements: list[str] = []

    def note(statement: Any, *_: Any, **__: Any) -> None:
        statements.append(str(statement.compile(dialect=engine.dialect)))

    engine = create_mock_engine(f"{drivername}://", note)
    try:
        metadata.create_all(engine, checkfirst=False)
    except Exception:  # noqa: BLE001  # a listener that asks the server: it has no statement that could be known
        statements.clear()
        for table in metadata.sorted_tables:
            note(CreateTable(table))
            statements += [repr(each.type.enums) for each in table.columns if isinstance(each.type, Enum)]
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                note(CreateIndex(index))
    yield from sorted(statements)  # tables that do not depend on each other come in any order


def _function(function: Callable[..., Any]) -> Iterator[str | bytes]:
    """
    Yield the name of a function and the file that it stands in.
    """
    if isinstance(function, partial):
        yield repr((function.args, sorted(function.keywords.items())))
        yield from _function(function.func)
        return
    function = inspect.unwrap(function)
    named = function if hasattr(function, "__qualname__") else type(function)
    yield f"{named.__module__}:{named.__qualname__}"
    try:
        path = Path(inspect.getsourcefile(named) or "")
    except TypeError:  # built in
        return
    if path.is_file():
        yield path.read_bytes()
    elif code := getattr(function, "__code__", None):  # typed into an interpreter
        yield from _code(code)


def _code(code: CodeType) -> Iterator[str | bytes]:
    yield code.co_code
    yield repr(code.co_names)
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from _code(constant)
        else:
            yield repr(constant)
