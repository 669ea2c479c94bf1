"""The commands that migrate databases; the work is done by the functions of `stillroom.migrations`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stillroom.cli import show
from stillroom.cli.base import Common, as_json, command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stillroom import Databases
    from stillroom.migrations import Outcome, Planned, Written

__all__: list[str] = []

one_or_all = click.argument("database", required=False)
patience = (
    click.option("--wait", type=click.FloatRange(min=0), default=600.0, show_default=True,
                 help="How long another process that migrates is waited for, in seconds."),
    click.option("--lock-timeout", type=click.FloatRange(min=0.001), default=0.2, show_default=True,
                 help="How long a statement waits for a lock, in seconds; everybody else waits behind it."),
    click.option("--retry-for", type=click.FloatRange(min=0), default=60.0, show_default=True,
                 help="How long a revision that met such a lock is tried again, in seconds."),
)  # fmt: skip


@command(one_or_all, as_json)
def init(common: Common, *, database: str | None, as_json: bool) -> None:
    """Make the directories for the revisions."""
    from stillroom import migrations as run

    with common.databases() as databases:
        made = [str(directory) for directory in run.init(databases, database)]
        needed = {
            str(run.schema_file(databases, each).with_name("versions")) for each in _migrated(databases, database)
        }
    _tell(made, "made", as_json=as_json)
    if not as_json:
        _tell(sorted(needed.difference(made)), "there is already", as_json=False)


@command(
    one_or_all,
    click.option("-m", "--message", required=True, help="What it does, in a few words."),
    click.option("--autogenerate", is_flag=True, help="Write what brings the tables to the models."),
    click.option("--allow-drops", is_flag=True, help="It may drop more than a few tables and columns."),
    as_json,
)
def revision(common: Common, *, as_json: bool, **values: Any) -> None:
    """
    Write a revision, to be read before it is run.

    With --autogenerate only where something changed.
    """
    from stillroom import migrations as run

    with common.databases() as databases:
        _show_written(run.revision(databases, **values), as_json=as_json)


@command(click.argument("database"), click.option("-m", "--message", default="merge", show_default=True), as_json)
def merge(common: Common, *, as_json: bool, **values: Any) -> None:
    """
    Join the heads of a database's revisions.

    Where there is one, nothing is written, and the exit code is 0.
    """
    from stillroom import migrations as run

    nothing = f"The revisions of {values['database']} have one head; there is nothing to join."
    with common.databases() as databases:
        _show_written(run.merge(databases, **values), as_json=as_json, nothing=nothing)


@command(
    one_or_all,
    click.option("--revision", default="head", show_default=True, help="Up to which one."),
    click.option(
        "--parallel",
        type=click.IntRange(0, 64),
        is_flag=False,
        flag_value=0,
        default=1,
        show_default=True,
        metavar="[N]",
        help="Databases at a time; without a number (or 0) two for each CPU.",
    ),
    click.option(
        "--canary",
        is_flag=False,
        flag_value="*",
        metavar="[NAME]",
        help="The database that goes first: if it fails, the others stay as they are. Without a name the first one.",
    ),
    *patience,
    as_json,
)
def upgrade(common: Common, *, as_json: bool, **values: Any) -> None:
    """
    Run the pending revisions of one database, or of all.

    The first failure stops, and the same again resumes.
    """
    from stillroom import migrations as run

    what = {name: values.pop(name) for name in ("database", "revision", "parallel", "canary")}
    what["parallel"] = what["parallel"] or None
    with common.databases() as databases:
        _migrate(lambda options: run.upgrade(databases, **what, options=options), values, as_json=as_json)


@command(
    one_or_all,
    click.option("--revision", required=True, help="Back to which one: an id, base, or -1 for one step."),
    click.option("--yes", is_flag=True, help="Do not ask."),
    *patience,
    as_json,
)
def downgrade(common: Common, *, database: str | None, revision: str, yes: bool, as_json: bool, **given: float) -> None:
    """
    Undo revisions of one database, or of all.

    It says first which ones, and asks; where there is no terminal to answer at, --yes is needed.
    """
    from stillroom import migrations as run

    if not yes and not sys.stdin.isatty():
        raise click.UsageError("this undoes revisions, and there is no terminal to ask at; say --yes if it is wanted")
    with common.databases() as databases:
        if not yes:
            _ask(run.plan_downgrade(databases, revision, database))
        _migrate(lambda options: run.downgrade(databases, revision, database, options=options), given, as_json=as_json)


@command(one_or_all, click.option("--sql", is_flag=True, help="Show the SQL as well."), as_json)
def plan(common: Common, *, database: str | None, sql: bool, as_json: bool) -> None:
    """
    List what an upgrade would run, with its locks and risks.

    Each database is asked which revision it has; without a connection there is `upgrade-sql`.
    """
    from stillroom import migrations as run

    with common.databases() as databases:
        if not as_json and (names := ", ".join(_migrated(databases, database))):
            click.echo(f"asking which revision there is in: {names}", err=True)
        planned = run.plan(databases, database)
    if as_json:
        show.print_json(planned)
    else:
        show.show_rows(
            ("database", "revision", "what", "locks", "think of"),
            [(each.database, each.revision, each.message, _locks(each), _risks(each)) for each in planned],
        )
        for each in planned if sql else ():
            click.echo(f"-- {each.database}: {each.revision}")
            click.echo(each.sql if each.sql is not None else "-- it asks the database before it knows what to do")


@command(
    click.argument("directory", type=click.Path(path_type=Path, file_okay=False)),
    one_or_all,
    click.option("--revision", default="head", show_default=True, help="Up to which one."),
    click.option("--start", default="base", show_default=True, help="What the database has."),
    as_json,
)
def upgrade_sql(
    common: Common, *, directory: Path, database: str | None, revision: str, start: str, as_json: bool
) -> None:
    """
    Write the SQL of an upgrade, a file for each database.

    Nothing is connected to. A database whose revisions ask it before they know what to do gets no file; the others do,
    and the exit code is 1.
    """
    from stillroom import migrations as run

    failed: run.SqlNotWritten | None = None
    with common.databases() as databases:
        try:
            texts = run.sql(databases, database, revision, start=start)
        except run.SqlNotWritten as error:
            failed, texts = error, error.texts
    _write({directory / f"{name}.sql": text for name, text in texts.items()}, as_json=as_json)
    if failed is not None:
        raise failed


@command(
    one_or_all,
    click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="A file; needs a database."),
    as_json,
)
def schema_dump(common: Common, *, database: str | None, output: Path | None, as_json: bool) -> None:
    """
    Write the schema of a database, or of all, as SQL.

    What the revisions make is written, without a connection; by default into schema.sql beside them.
    """
    from stillroom import migrations as run

    if output is not None and database is None:
        raise click.UsageError("--output needs the name of a database: each has a file of its own")
    with common.databases() as databases:
        texts = run.dump_schema(databases, database)
        paths = {output or run.schema_file(databases, name): text for name, text in texts.items()}
    _write(paths, as_json=as_json)


@command(
    click.argument("database"),
    click.option("-i", "--input", "source", type=click.Path(path_type=Path, dir_okay=False), help="The file."),
    as_json,
)
def schema_load(common: Common, *, database: str, source: Path | None, as_json: bool) -> None:
    """
    Fill an empty database with what schema-dump wrote.

    That is faster than its revisions, which it has afterwards.
    """
    from stillroom import migrations as run

    with common.databases() as databases:
        path = source or run.schema_file(databases, database)
        if not path.is_file():
            raise click.UsageError(f"there is no file {str(path)!r}; write it with `stillroom schema-dump {database}`")
        revision = run.load_schema(databases, database, path.read_text(encoding="utf-8"))
    if as_json:
        show.print_json({"database": database, "revision": revision})
    else:
        click.echo(f"{database}: has the schema of {revision}")


@command(
    click.argument("database"),
    click.option("-m", "--message", default="squashed", show_default=True),
    click.option("--revision", default="head", show_default=True, help="The last of those that become one."),
    as_json,
)
def squash(common: Common, *, as_json: bool, **values: Any) -> None:
    """
    Make one revision of many.

    Databases that are in the midst of them go on with the old files.
    """
    from stillroom import migrations as run

    with common.databases() as databases:
        written = run.squash(databases, **values)
    _show_written([written], as_json=as_json)


@command(one_or_all, as_json)
def migrations(common: Common, *, database: str | None, as_json: bool) -> None:
    """
    Show where databases stand.

    Their current and their newest revision, what is pending, what is off.
    """
    _stand(common, database, as_json=as_json)


@command(one_or_all, as_json)
def check(common: Common, *, database: str | None, as_json: bool) -> None:
    """
    Same as `migrations`, but what is off is the exit code.

    3 something is pending, 4 tables differ from the models, 5 several heads, 6 a revision was edited after it ran,
    7 a database has a revision that is not here, 8 a killed process left a revision half done; the highest of them.
    """
    sys.exit(_stand(common, database, as_json=as_json))


@command(one_or_all, as_json)
def history(common: Common, *, database: str | None, as_json: bool) -> None:
    """
    List the revisions, the newest first.

    Nothing is connected to.
    """
    from stillroom import migrations as run

    with common.databases() as databases:
        known = run.history(databases, database)
    if as_json:
        show.print_json(known)
    else:
        rows = [(each.database, each.revision, " ".join(each.down), each.message) for each in known]
        show.show_rows(("database", "revision", "stands on", "what"), rows)


@command(
    click.argument("revision"),
    one_or_all,
    click.option("--purge", is_flag=True, help="Forget first what was written down."),
    as_json,
)
def stamp(common: Common, *, revision: str, database: str | None, purge: bool, as_json: bool) -> None:
    """
    Write down that databases have a revision.

    Nothing of it is run.
    """
    from stillroom import migrations as run

    with common.databases() as databases:
        run.stamp(databases, revision, database, purge=purge)
        if as_json:
            show.print_json(run.status(databases, database))


@command(one_or_all, click.option("--timeout", type=click.FloatRange(min=0), default=60.0, show_default=True), as_json)
def wait(common: Common, *, database: str | None, timeout: float, as_json: bool) -> None:
    """Wait until databases answer. Exit with 1 if one does not in time."""
    from stillroom import migrations as run

    with common.databases() as databases:
        run.wait(databases, database, timeout=timeout)
        if as_json:
            show.print_json([database] if database is not None else list(databases))


def _migrated(databases: Databases, database: str | None) -> list[str]:
    names = databases if database is None else [databases[database].name]
    return [name for name in names if databases[name].settings.migrations is not None]


def _ask(undone: Mapping[str, Sequence[str]]) -> None:
    lines = "\n".join(f"  {name}: {', '.join(revisions)}" for name, revisions in undone.items() if revisions)
    if lines:
        click.confirm(f"This is going to undo:\n{lines}\nIs that what you want?", abort=True, err=True)


def _migrate(work: Callable[[Any], list[Outcome]], given: dict[str, float], *, as_json: bool) -> None:
    from stillroom.cli.progress import progress_bars
    from stillroom.migrations import MigrationsFailed, Options

    failed: MigrationsFailed | None = None
    outcomes: Sequence[Outcome]
    with progress_bars(show.console(stderr=True)) as progress:
        options = Options(**given, progress=progress, notice=lambda text: click.echo(text, err=True))
        try:
            outcomes = work(options)
        except MigrationsFailed as error:
            failed, outcomes = error, error.outcomes
    if as_json:
        show.print_json(outcomes)
    else:
        rows = [(each.database, each.state, " ".join(each.revisions), f"{each.seconds:.2f}") for each in outcomes]
        show.show_rows(("database", "state", "ran", "s"), rows)
    if failed is not None:
        raise failed


def _stand(common: Common, database: str | None, *, as_json: bool) -> int:
    from stillroom.migrations import EXIT_CODES, status

    with common.databases() as databases:
        found = status(databases, database)
    if as_json:
        show.print_json(found)
    else:
        rows = []
        for each in found:
            when = f"{each.at:%Y-%m-%d %H:%M}" if each.at else ""
            rows.append(
                (each.database, " ".join(each.current), " ".join(each.heads), str(len(each.pending)), when, each.by)
            )
        show.show_rows(("database", "has", "newest", "pending", "last ran (UTC)", "by"), rows)
        for each in found:
            for finding in each.findings:
                click.echo(f"{each.database}: {finding.text}")
            if each.drift:
                command = f'stillroom revision {each.database} -m "..." --autogenerate'
                click.echo(f"{each.database}: write a revision that does it: {command}")
    return max((EXIT_CODES[finding.kind] for each in found for finding in each.findings), default=0)


def _tell(paths: Sequence[str], how: str, *, as_json: bool) -> None:
    if as_json:
        show.print_json(paths)
    for path in () if as_json else paths:
        click.echo(f"{how} {path}")


def _write(texts: Mapping[Path, str], *, as_json: bool) -> None:
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    _tell([str(path) for path in texts], "wrote", as_json=as_json)


def _locks(planned: Planned) -> str:
    return "\n".join(dict.fromkeys(step.lock for step in planned.steps if step.lock))


def _risks(planned: Planned) -> str:
    found = [risk for step in planned.steps for risk in step.risks]
    if planned.sql is None:
        found.append("asks the database before it knows")
    if not planned.transactional:
        found.append("is no transaction")
    if not planned.reversible:
        found.append("has no way back")
    return "\n".join(dict.fromkeys(found))


def _show_written(
    written: Sequence[Written], *, as_json: bool, nothing: str = "Nothing changed; no revision was written."
) -> None:
    if as_json:
        show.print_json(written)
        return
    for each in written:
        click.echo(f"{each.database}: wrote {each.path}")
        for change in each.changes:
            click.echo(f"  {change}")
    if not written:
        click.echo(nothing)
