"""A prompt on a database, which only reads unless it is asked to write."""

from __future__ import annotations

import csv
import sqlite3
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from sqlalchemy.exc import SQLAlchemyError

from stillroom import StillroomError
from stillroom.cli import show
from stillroom.cli.base import Common, command
from stillroom.cli.problems import paragraph

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, CursorResult

    from stillroom import Database

__all__ = ["statements"]

HISTORY = Path("~/.local/state/stillroom/sql_history")
ENDS = {"exit", "quit", "\\q", "exit;", "quit;"}


@command(
    click.argument("database", required=False),
    click.option(
        "-c", "given", multiple=True, metavar="STATEMENT", help="Run this, and end. May be given several times."
    ),
    click.option("--write", is_flag=True, help="Statements may write; each is committed by itself."),
    click.option("--json", "form", flag_value="json", help="Print the rows as JSON, a line for each statement."),
    click.option("--csv", "form", flag_value="csv", help="Print the rows as CSV."),
)
def sql(common: Common, *, database: str | None, given: Sequence[str], write: bool, form: str | None) -> None:
    """
    Open a prompt on a database. Where none is named, it is the default one.

    A statement ends with a semicolon. It only reads, on a replica where there is one; --write changes that.
    Statements may be piped in as well.
    """
    with common.databases() as databases:
        chosen = databases.default if database is None else databases[database]
        with _connected(chosen, write=write) as connection:
            if given:
                texts: Iterator[str] = iter(given)
            elif not sys.stdin.isatty():
                texts = statements(line.rstrip("\n") for line in sys.stdin)
            else:
                _converse(connection, chosen.name, form)
                return
            for text in texts:
                _run(connection, text, form)


@contextmanager
def _connected(database: Database, *, write: bool) -> Iterator[Connection]:
    if write:
        with database.control() as connection:
            yield connection
    else:
        with database.reader_engine.connect() as connection:
            yield connection


def statements(lines: Iterator[str]) -> Iterator[str]:
    """
    Join lines to statements: each ends with a semicolon at the end of a line that is in no text and no function's body.
    """
    text = ""
    for line in lines:
        if not text and line.strip() in ENDS:
            return
        text = f"{text}\n{line}" if text else line
        if sqlite3.complete_statement(text) and text.count("$$") % 2 == 0:
            yield text
            text = ""
        elif not text.strip():
            text = ""
    if text.strip():
        yield text


def _run(connection: Connection, text: str, form: str | None) -> None:
    result = connection.exec_driver_sql(text.strip().removesuffix(";"), execution_options={"no_parameters": True})
    if result.returns_rows:
        _show(result, form)
    elif form is None:
        click.echo("done" if result.rowcount < 0 else _counted(result.rowcount), err=True)
    result.close()


def _show(result: CursorResult[Any], form: str | None) -> None:
    keys = list(result.keys())
    if form == "json":
        rows = [dict(zip(keys, row, strict=True)) for row in result]
        click.echo(msgspec.json.encode(rows, enc_hook=str).decode())
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(keys)
        writer.writerows(result)
    else:
        found = [["" if value is None else str(value) for value in row] for row in result]
        show.show_rows(keys, found)
        click.echo(_counted(len(found)), err=True)


def _counted(rows: int) -> str:
    return f"{rows} row{'' if rows == 1 else 's'}"


def _converse(connection: Connection, name: str, form: str | None) -> None:
    _remember()
    for text in statements(_typed(name)):
        try:
            _run(connection, text, form)
        except (SQLAlchemyError, StillroomError) as error:
            click.echo(f"Error: {paragraph(error)}", err=True)
            with suppress(SQLAlchemyError):
                connection.rollback()


def _typed(name: str) -> Iterator[str]:
    while True:
        try:
            yield input(f"{name}> ")
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()


def _remember() -> None:
    """
    Keep what was typed for the next time, where Python has readline.
    """
    try:
        import atexit
        import readline
    except ImportError:
        return
    path = HISTORY.expanduser()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        readline.read_history_file(path)
        atexit.register(readline.write_history_file, path)
