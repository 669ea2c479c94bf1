"""Finding models: every module below a package, so that metadata is complete and no import is circular."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData

from .errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable


def import_models(packages: Iterable[str], path: str) -> None:
    """
    Import every module below each of `packages`.

    Args:
        packages: Names of packages or modules.
        path: The settings key they come from, for messages.

    Raises:
        SettingsError: A module cannot be imported; the error names it, and is chained from the first cause.
    """
    from pkgutil import walk_packages

    for name in packages:
        module = _import(name, path)
        for found in walk_packages(getattr(module, "__path__", ()), f"{name}.", onerror=_ignore):
            _import(found.name, path)


def _ignore(name: str) -> None:
    """
    Leave a package that cannot be imported to `_import`, which reports it.
    """


def _import(name: str, path: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise SettingsError(
            f"{path}: the module {name!r} cannot be imported: {type(error).__name__}: {error}", path=path
        ) from error


def load_metadata(target: str, path: str) -> MetaData:
    """
    Return the MetaData that `target` names.

    Args:
        target: "package.module:attribute"; the attribute is a MetaData or a declarative base.
        path: The settings key it comes from, for messages.

    Raises:
        SettingsError: There is no such module or attribute, or it is neither.
    """
    module_name, _, attribute = target.partition(":")
    found: Any = _import(module_name, path)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise SettingsError(f"{path}: {module_name!r} has no attribute {attribute!r}", path=path) from None
    metadata = getattr(found, "metadata", found)
    if not isinstance(metadata, MetaData):
        raise SettingsError(
            f"{path}: {target!r} is a {type(found).__name__}; it must be a MetaData or a declarative base", path=path
        )
    return metadata
