"""
The settings that an application is given: frozen, valid however they were made, and without a secret in any repr.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from typing import Any, NoReturn

import msgspec
from sqlalchemy.engine import URL

from stillroom.errors import SettingsError, UnknownDatabase
from stillroom.secrets import MASK, mask_mapping, mask_text, mask_url
from stillroom.settings.checks import check_all
from stillroom.settings.resolving import convert_database, overlay, resolve
from stillroom.settings.schema import (
    DATABASE_KEYS,
    TOP_KEYS,
    Given,
    Isolation,
    MultipleWrites,
    Problem,
    Role,
    convert,
    known_keys,
    name_problem,
    nearest,
)
from stillroom.settings.sources import find_file, from_flat
from stillroom.settings.urls import Backend, backend_of, scheme_backend

__all__ = ["DatabaseSettings", "Settings"]


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    The settings of one database; times are in seconds. ``docs/settings.md`` describes every field.

    Made by ``Settings``, by ``from_url``, or directly; a url given as text becomes a SQLAlchemy URL.

    Raises:
        SettingsError: the values do not fit the backend, or a URL is none.
    """

    url: URL
    replicas: tuple[URL, ...] = ()
    role: Role | None = None
    metadata: str | None = None
    models: tuple[str, ...] = ()
    migrations: str | None = None
    depends_on: tuple[str, ...] = ()
    admin_url: URL | None = None
    migration_url: URL | None = None
    version_table: str | None = None
    version_schema: str | None = None
    disposable: bool = False
    pooler: bool = False
    pool_size: int = 5
    max_overflow: int = 10
    pool_timeout: float = 30.0
    pool_recycle: float = 0.0
    ping_after: float = 30.0
    connect_timeout: float = 10.0
    statement_timeout: float = 0.0
    lock_timeout: float | None = None
    idle_transaction_timeout: float = 0.0
    commit_timeout: float = 30.0
    verify_commit: bool = False
    isolation: Isolation | None = None
    echo: bool = False
    server_settings: dict[str, str] = {}
    connect_args: dict[str, Any] = {}
    engine: dict[str, Any] = {}

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        converted = _converted("database", self.given(), problems)
        if problems:
            del converted
            raise _error(problems)
        for key, value in converted.items():
            msgspec.structs.force_setattr(self, key, value)

    @classmethod
    def from_url(cls, url: str | URL, **options: Any) -> DatabaseSettings:
        """
        Make the settings of a database that stands alone.

        Args:
            url: where it is.
            options: any other field, as it would be given in a mapping; variables are not put in.

        Raises:
            SettingsError: a field is unknown or wrong.
        """
        problems: list[Problem] = []
        converted = _converted("database", {**options, "url": url}, problems)
        del url, options
        if problems:
            del converted
            raise _error(problems)
        return cls(**converted)

    @property
    def backend(self) -> Backend:
        """
        ``sqlite``, ``postgresql``, or ``mysql`` (for MariaDB too).
        """
        return backend_of(self.url)

    def to_dict(self, *, masked: bool = True) -> dict[str, Any]:
        """
        Write the settings as plain values, without what is at its default.

        Args:
            masked: False shows the passwords.

        Returns:
            A new dict; URLs are text.
        """
        values = {key: _plain(value, masked=masked) for key, value in self.given().items()}
        return mask_mapping(values) if masked else values

    def given(self) -> dict[str, Any]:
        """
        Collect what is not at its default.
        """
        values = {key: getattr(self, key) for key in self.__struct_fields__}
        defaults = _defaults()
        return {key: value for key, value in values.items() if key not in defaults or not _same(value, defaults[key])}

    def __repr__(self) -> str:
        return f"DatabaseSettings({', '.join(f'{key}={value!r}' for key, value in self.to_dict().items())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # msgspec's own would show the values as they are.
        return list(self.to_dict().items())


class DatabasesSettings(Mapping[str, DatabaseSettings]):
    """
    The databases' settings by name, in declared order; cannot be changed, and pickles.
    """

    __slots__ = ("_databases",)

    def __init__(self, databases: Mapping[str, DatabaseSettings]) -> None:
        self._databases = dict(databases)

    def __getitem__(self, name: str) -> DatabaseSettings:
        return self._databases[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._databases)

    def __len__(self) -> int:
        return len(self._databases)

    def __repr__(self) -> str:
        return repr(self._databases)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    The settings of an application's databases. ``docs/settings.md`` describes sources, keys and profiles.

    Attributes:
        databases: by name, in declared order.
        default: the name of the default database.
        on_multiple_writes: what the commit of a unit of work that wrote to several databases does.
        profile: the chosen profile, or None.
        application: the name that the servers see for our connections.
        secret_key: what cursors of pages are signed with, or None.

    Raises:
        SettingsError: anything is wrong; all of it is named, with full key paths.
    """

    databases: Mapping[str, DatabaseSettings]
    default: str
    on_multiple_writes: MultipleWrites = "ordered"
    profile: str | None = None
    application: str = "stillroom"
    secret_key: str | None = None

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        reasons = {name: name_problem(name) for name in self.databases}
        problems += [Problem(f"databases.{name}", reason) for name, reason in reasons.items() if reason]
        for key in TOP_KEYS:
            if key != "secret_key" or self.secret_key is not None:
                convert(key, key, getattr(self, key), TOP_KEYS, problems)
        _check(self.databases, self.default, problems)
        if problems:
            raise _error(problems)
        msgspec.structs.force_setattr(self, "databases", DatabasesSettings(self.databases))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        profile: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """
        Read the settings of this application.

        Args:
            path: a TOML file; None for the file that STILLROOM_CONFIG names, else ``stillroom.toml`` in the current
                directory, else ``[tool.stillroom]`` in its ``pyproject.toml``, else none: DATABASE_URL is enough.
            profile: the profile; None for the one that STILLROOM_PROFILE names, an empty text for none.
            environ: the variables; None for those of this process.

        Raises:
            SettingsError: anything is wrong; all of it is named, with full key paths.
        """
        outcome = _read(path, profile, os.environ if environ is None else environ)
        # Whoever shows the local variables of a traceback's frames shows no secret.
        del environ
        return _settled(outcome)

    @classmethod
    def from_mapping(
        cls, mapping: Mapping[str, Any], *, profile: str | None = None, environ: Mapping[str, str] | None = None
    ) -> Settings:
        """
        Take the settings from nested mappings with the keys of the file. The environment has its say, as over a file.

        Args:
            mapping: the settings; URLs may be text or SQLAlchemy's.
            profile: as for ``load``.
            environ: the variables; None for those of this process, ``{}`` to let the environment have no say.

        Raises:
            SettingsError: anything is wrong; all of it is named, with full key paths.
        """
        outcome = _made(mapping, profile, os.environ if environ is None else environ, [])
        del mapping, environ
        return _settled(outcome)

    @classmethod
    def from_ini(
        cls,
        mapping: Mapping[str, Any],
        prefix: str = "stillroom.",
        *,
        profile: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """
        Take the settings from flat keys, as Pyramid has them: ``stillroom.databases.main.url``.

        Args:
            mapping: the flat keys; those without the prefix are left alone.
            prefix: what the keys begin with.
            profile: as for ``load``.
            environ: as for ``from_mapping``.

        Raises:
            SettingsError: anything is wrong; all of it is named, with full key paths.
        """
        problems: list[Problem] = []
        tables = from_flat(mapping, prefix, problems)
        outcome = _made(tables, profile, os.environ if environ is None else environ, problems)
        del mapping, environ, tables
        return _settled(outcome)

    def replace(self, name: str, /, **changes: Any) -> Settings:
        """
        Copy the settings with some of one database's changed.

        Another ``url`` drops the replicas, ``admin_url`` and ``migration_url`` of the old one; None is the default.

        Args:
            name: the database.
            changes: its keys, as they would be given in a mapping; variables are not put in.

        Raises:
            UnknownDatabase: no database has that name.
            SettingsError: a key is unknown or its value wrong.
        """
        outcome = self._replaced(name, changes) if name in self.databases else None
        del changes
        return _settled(outcome) if outcome is not None else self._unknown(name)

    def _replaced(self, name: str, changes: Mapping[str, Any]) -> Settings | list[Problem]:
        """
        Do the work of ``replace``.
        """
        problems: list[Problem] = []
        path = f"databases.{name}"
        known = known_keys(path, changes, DATABASE_KEYS, problems)
        old = {key: value for key, value in self[name].given().items() if key == "url" or key not in known}
        merged = overlay(_paths(path, old), _paths(path, known), scheme_backend)
        values = convert_database(path, merged, problems)
        if problems:
            return problems
        databases = {**self.databases, name: DatabaseSettings(**values)}
        _check(databases, self.default, problems)
        return problems or msgspec.structs.replace(self, databases=databases)

    def _unknown(self, name: str) -> NoReturn:
        raise UnknownDatabase(f"no database {name!r} is declared{nearest(str(name), self.databases)}")

    def to_dict(self, *, masked: bool = True) -> dict[str, Any]:
        """
        Write the settings as plain values, the databases without what is at its default.

        Args:
            masked: False shows the passwords and the secret key.

        Returns:
            A new dict, such as the status command shows.
        """
        top = {key: getattr(self, key) for key in ("default", "on_multiple_writes", "profile", "application")}
        if self.secret_key is not None:
            top["secret_key"] = MASK if masked else self.secret_key
        return {
            **top,
            "databases": {name: database.to_dict(masked=masked) for name, database in self.databases.items()},
        }

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{key}={value!r}' for key, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # msgspec's own would show the secret key.
        shown = {key: getattr(self, key) for key in self.__struct_fields__}
        return list((shown | {"secret_key": self.secret_key and MASK}).items())

    def __getitem__(self, name: str) -> DatabaseSettings:
        return self.databases[name] if name in self.databases else self._unknown(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.databases)

    def __len__(self) -> int:
        return len(self.databases)

    def __contains__(self, name: object) -> bool:
        return name in self.databases


@cache
def _defaults() -> dict[str, Any]:
    """
    Collect the defaults of the fields of one database.
    """
    fields = msgspec.structs.fields(DatabaseSettings)
    made = {field.name: field.default_factory() for field in fields if field.default_factory is not msgspec.NODEFAULT}
    return {field.name: field.default for field in fields if field.default is not msgspec.NODEFAULT} | made


def _same(value: Any, default: Any) -> bool:
    """
    Compare with a default; in Python, 0 equals False.
    """
    return bool(value == default) and isinstance(value, bool) == isinstance(default, bool)


def _plain(value: Any, *, masked: bool) -> Any:
    """
    Write URLs as text and tuples as lists.
    """
    if isinstance(value, URL):
        return mask_url(value) if masked else value.render_as_string(hide_password=False)
    if isinstance(value, tuple):
        return [_plain(item, masked=masked) for item in value]
    return deepcopy(value) if isinstance(value, dict) and not masked else value


def _paths(path: str, values: Mapping[str, Any]) -> dict[str, Given]:
    """
    Give each value its path.
    """
    return {key: Given(value, f"{path}.{key}") for key, value in values.items()}


def _converted(path: str, values: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """
    Give the values of one database their types, and check them.
    """
    known = known_keys(path, values, DATABASE_KEYS, problems)
    given = {key: value for key, value in known.items() if value is not None}
    return convert_database(path, _paths(path, given), problems)


def _check(databases: Mapping[str, DatabaseSettings], default: str, problems: list[Problem]) -> None:
    """
    Check databases against each other.
    """
    given = {name: database.given() for name, database in databases.items()}
    check_all(given, Given(default, "default"), problems)


def _read(
    path: str | os.PathLike[str] | None, profile: str | None, environ: Mapping[str, str]
) -> Settings | list[Problem]:
    """
    Read the file, and make settings of it. A file that cannot be read is the only problem then.
    """
    problems: list[Problem] = []
    tables = find_file(path, environ, problems)
    return problems or _made(tables, profile, environ, problems)


def _made(
    tables: Mapping[str, Any], profile: str | None, environ: Mapping[str, str], problems: list[Problem]
) -> Settings | list[Problem]:
    """
    Make settings of tables as written.
    """
    resolved = resolve(tables, profile, environ, problems)
    if resolved is None:
        return problems
    databases = {name: DatabaseSettings(**values) for name, values in resolved.databases.items()}
    return Settings(databases=databases, profile=resolved.profile, **resolved.top)


def _settled(outcome: Settings | list[Problem]) -> Settings:
    """
    Return the settings, or raise what is wrong with them from here, where no frame holds what was read.
    """
    if isinstance(outcome, Settings):
        return outcome
    raise _error(outcome)


def _error(problems: list[Problem]) -> SettingsError:
    """
    Make one error of all problems.
    """
    lines = [mask_text(f"{path}: {text}") for path, text in dict.fromkeys(problems)]
    if len(lines) == 1:
        return SettingsError(lines[0], path=problems[0].path)
    listed = "\n".join(f"- {line}" for line in lines)
    return SettingsError(f"{len(lines)} settings are wrong:\n{listed}", path=problems[0].path)
