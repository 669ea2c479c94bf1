"""How a repository finds its model, from the type parameter, and its session, from what it was given."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, cast

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session
from typing_extensions import TypeVar

from ..databases import Databases
from ..models import InvalidModel
from ..retry import Retry
from ..unit_of_work import UnitOfWork
from .plan import Plan
from .problems import raise_translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self, TypeAlias

    from ..status import SessionRole
    from .query import Query

    SyncSource: TypeAlias = "UnitOfWork | Session | scoped_session[Session] | Databases"

M = TypeVar("M")
"""The mapped class."""
R = TypeVar("R", default=M)
"""What goes in and out: the mapped class itself, or the class of the domain objects."""


@lru_cache(maxsize=1024)
def _specialised(cls: type[Any], model: type[Any], returns: type[Any] | None) -> type[Any]:
    name = f"{cls.__name__}[{model.__name__}]"
    return type(name, (cls,), {"model": model, "returns": returns, "__module__": cls.__module__})


class Described(Generic[M, R]):
    """
    What every repository class knows: its model, and the rest of its plan.

    Class keywords: `database` (its name; otherwise where the model's base says, else the default database) and
    `returns` (the class of the domain objects).

    Attributes:
        renamed: The attribute of the row for a field of the domain objects, where their names differ; nested fields by
            their path, as in "lines.title"; None for a field that is not stored. Static methods `from_row` and `to_row`
            do everything by hand.
    """

    renamed: ClassVar[Mapping[str, str | None]] = {}
    model: ClassVar[type[Any] | None] = None
    returns: ClassVar[type[Any] | None] = None
    database: ClassVar[str | None] = None
    default_role: ClassVar[SessionRole | None] = None

    if not TYPE_CHECKING:

        def __class_getitem__(cls, parameters: Any) -> Any:
            """
            Return the class for a model: a subclass that has it as its attribute `model`.
            """
            parameters = parameters if isinstance(parameters, tuple) else (parameters,)
            if any(hasattr(each, "__constraints__") for each in parameters):  # a generic base class of the user's own
                missing = len(cls.__parameters__) - len(parameters)
                return super().__class_getitem__(parameters + parameters[:1] * missing)
            if not all(isinstance(each, type) for each in parameters):
                raise InvalidModel(
                    f"{cls.__name__}[{', '.join(map(repr, parameters))}]: the parameter is the mapped class itself, "
                    "so it must be imported where the repository is declared"
                )
            return _specialised(cls, parameters[0], parameters[1] if len(parameters) > 1 else None)

    def __init_subclass__(
        cls, *, database: str | None = None, returns: type[Any] | None = None, **options: Any
    ) -> None:
        super().__init_subclass__(**options)
        if database is not None:
            cls.database = database
        if returns is not None:
            cls.returns = returns

    @classmethod
    def describe(cls) -> Plan:
        """
        Return the plan of this class, made at the first use.

        Raises:
            InvalidModel: The class names no model, or one that is not mapped.
        """
        plan = cls.__dict__.get("_plan")
        if plan is None:
            if cls.model is None:
                ours = next(each.__name__ for each in cls.__mro__ if each.__module__.startswith("stillroom."))
                raise InvalidModel(f"{cls.__name__} names no model; write `{ours}[User]`, with the mapped class")
            if cls.returns is None and (cls.renamed or hasattr(cls, "from_row") or hasattr(cls, "to_row")):
                raise InvalidModel(
                    f"{cls.__name__} says how domain objects are made, but not of which class they are; write "
                    f"`class {cls.__name__}(…[{cls.model.__name__}, Order])`"
                )
            plan = Plan(cls.model, returns=cls.returns, hooks=cls, database=cls.database)
            cls._plan = plan  # type: ignore[attr-defined]  # one for each class, never inherited
        return cast("Plan", plan)


class Binding(Described[M, R]):
    """
    What repositories of both worlds know of where their session comes from.

    Attributes:
        plan: The model, and how it is read and written.
    """

    def __init__(self, source: Any, role: SessionRole | None) -> None:
        self.plan = self.describe()
        self._role = role or self.default_role
        self._source = source
        self._session: Any = None
        self._units: Callable[..., Any] | None = None

    def with_deleted(self) -> Self:
        """
        Return the same repository, but one that sees rows that are softly deleted too.
        """
        other = copy.copy(self)
        other.plan = self.plan.with_deleted()
        return other

    def _check_source(self, role: SessionRole | None, units: type[Any], sessions: tuple[type[Any], ...]) -> None:
        source, name = self._source, type(self).__name__
        if isinstance(source, sessions):
            if role is not None:
                raise ValueError(
                    f"role={role!r} with a session: it has its role already; give the unit of work: "
                    f"{name}(uow, role={role!r})"
                )
        elif not isinstance(source, units | Databases):
            raise TypeError(
                f"{name}({source!r}): it takes {units.__name__}, {sessions[0].__name__} or Databases; there is "
                "Repository for threads and AsyncRepository for asyncio"
            )

    def _current_session(self, units: type[Any]) -> Any:
        unit = self._source.current
        if not isinstance(unit, units):
            raise TypeError(
                f"{type(self).__name__} needs {units.__name__}, and the open one is {unit!r}; there is Repository for "
                "threads and AsyncRepository for asyncio"
            )
        return unit.session(self.plan.database, role=self._role)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.plan.model.__name__} on {self._source!r}>"


class Bound(Binding[M, R]):
    """
    A repository that has a session, or will find one when it is used.

    Args:
        source: A unit of work; a session; or the `Databases`, for the unit of work that is open at each call.
        role: As for `UnitOfWork.session`: "writer", "reader", "logger" or "any".

    Raises:
        TypeError: The source gives no session of this world.
        ValueError: A role is asked for of a session, which has one already.
    """

    def __init__(self, source: SyncSource, *, role: SessionRole | None = None) -> None:
        super().__init__(source, role)
        self._check_source(role, UnitOfWork, (Session, scoped_session))

    @classmethod
    def autocommit(cls, databases: Databases, *, retry: Retry | None = None) -> Self:
        """
        Return a repository each call of which is a unit of work of its own, committed when it returns.

        Args:
            databases: The databases.
            retry: Try a call again where nothing was committed; None for the default policy, `Retry(attempts=1)` for
                never.
        """
        self = cls(databases)
        role = self._role

        @databases.transactional(propagation="new", retry=retry or Retry(), read_only=role == "reader")
        def units(unit: UnitOfWork, function: Callable[..., Any], plan: Plan, args: tuple[Any, ...]) -> Any:
            return function(unit.session(plan.database, role=role), plan, *args)

        self._units = units
        return self

    @property
    def session(self) -> Session:
        """
        The session that it uses, opened now if it was not.

        Raises:
            NoUnitOfWork: It was made from `Databases`, and no unit of work is open.
        """
        source = self._source
        if self._session is None:
            if isinstance(source, Databases):
                return cast("Session", self._current_session(UnitOfWork))
            if isinstance(source, scoped_session):
                return cast("Session", source())
            is_session = isinstance(source, Session)
            self._session = source if is_session else source.session(self.plan.database, role=self._role)
        return cast("Session", self._session)

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        """
        Call one of the rules with the session and the plan; its database errors become ours.
        """
        try:
            if self._units is not None:
                return self._units(function, self.plan, args)
            return function(self._session or self.session, self.plan, *args)
        except DBAPIError as error:
            raise_translated(error, self.plan)

    def _stream(self, function: Callable[..., Iterator[Any]], query: Query, batch: int) -> Iterator[Any]:
        """
        Same as `_run`, but for a rule that is a generator: with autocommit its unit of work is open until it ends.
        """
        try:
            with ExitStack() as stack:
                yield from function(self._session_until(stack), self.plan, query, batch)
        except DBAPIError as error:
            raise_translated(error, self.plan)

    def _session_until(self, stack: ExitStack) -> Session:
        if self._units is None:
            return self.session
        unit = cast("Databases", self._source).unit_of_work(read_only=self._role == "reader")
        unit.core.start()  # not by `with`, which makes it current: between two rows the code of the caller runs
        stack.push(unit)
        return unit.session(self.plan.database, role=self._role)
