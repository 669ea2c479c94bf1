"""An interactive shell with the databases and their models at hand."""

from __future__ import annotations

import code
import sys
from typing import TYPE_CHECKING, Any

import click
from sqlalchemy import inspect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillroom import Databases

__all__ = ["names", "run"]


def names(databases: Databases) -> dict[str, Any]:
    """
    Find the models: the mapped classes in the modules that the settings name with `models` and `metadata`.

    Of two models with one name the later database's is found.
    """
    found: dict[str, Any] = {}
    for database in map(databases.__getitem__, databases):
        _ = database.metadata  # imports them
        settings = database.settings
        packages = [*settings.models, *([settings.metadata.partition(":")[0]] if settings.metadata else [])]
        for name, module in list(sys.modules.items()):
            if any(name == package or name.startswith(f"{package}.") for package in packages):
                found |= {key: value for key, value in vars(module).items() if _is_model(value)}
    return found


def run(databases: Databases, commands: Sequence[str]) -> None:
    """
    Run lines, or what a person types, in a unit of work that commits by hand.

    Args:
        databases: The databases.
        commands: The lines, of whose expressions the values are printed; none for a shell, which is IPython's where
            that is installed.
    """
    sys.path.insert(0, "")  # as in Python's own shell: models are found in the current directory
    models = names(databases)
    with databases.unit_of_work(commit="manual") as uow:
        namespace = {**models, "dbs": databases, "uow": uow}
        for command in commands:
            exec(compile(command, "<command>", "single"), namespace)  # noqa: S102  # what a shell is for
        if commands:
            return
        banner = f"dbs, uow: uow.commit() commits, the end rolls back. Models: {', '.join(sorted(models)) or 'none'}."
        try:
            from IPython import start_ipython
        except ImportError:
            code.interact(banner, local=namespace, exitmsg="")
        else:
            click.echo(banner)
            start_ipython([], user_ns=namespace)


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and inspect(value, raiseerr=False) is not None
