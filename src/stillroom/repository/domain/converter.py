"""Domain objects: how they are made of rows and stored, derived once for each class from its fields, or by hooks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from .pairing import Pairing

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session
    from sqlalchemy.orm.interfaces import ORMOption

    from ..plan import Plan


class Converter:
    """
    Between the rows of a repository and its domain objects.

    `from_row` and `to_row` of the repository class win over what is derived; one of them may stand alone. Nothing is
    derived before the first use.

    Args:
        plan: The plan of the repository class.

    Raises:
        UnknownColumn: At the first use: the domain class has a field that the model has not.
        InvalidModel: At the first use: the two do not fit together in another way.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._from_row: Callable[[Any], Any] | None = getattr(plan.hooks, "from_row", None)
        self._to_row: Callable[[Any], Any] | None = getattr(plan.hooks, "to_row", None)

    @cached_property
    def _pairing(self) -> Pairing:
        return Pairing(
            cast("type[Any]", self._plan.returns), self._plan.mapper, getattr(self._plan.hooks, "renamed", {})
        )

    @cached_property
    def out(self) -> Callable[[Any], Any]:
        """
        What makes the domain object of a row.
        """
        return self._from_row or self._pairing.out

    @cached_property
    def loading(self) -> tuple[ORMOption, ...]:
        """
        The loader options for the rows behind relationships that `out` needs.
        """
        return () if self._from_row is not None else self._pairing.loading

    def into(self, item: Any, session: Session) -> Any:
        """
        Make a new row of a domain object, not yet added to the session.

        Args:
            item: The domain object; a key that is None, unset or absent is left to the database.
            session: Where rows are looked up that the object only refers to.
        """
        if self._to_row is not None:
            return self._by_hook(item)
        with session.no_autoflush:  # half of what belongs together must not be sent
            return self._pairing.into(item, session)

    def update(self, entity: Any, item: Any, session: Session) -> Any:
        """
        Set a stored row from a domain object, only what differs; what the object has not is left alone.

        Args:
            entity: The row.
            item: The domain object.
            session: The session of the row.

        Returns:
            The row.

        Raises:
            StaleDataError: The object was made of another version of the row.
        """
        with session.no_autoflush:
            if self._to_row is not None:
                return session.merge(self._by_hook(item))
            self._pairing.update(entity, item, session)
        return entity

    def values(self, item: Any) -> dict[str, Any]:
        """
        Return the columns of a domain object by the attribute of the row, without what is behind relationships.
        """
        if self._to_row is not None:
            entity = self._by_hook(item)
            return {name: entity.__dict__[name] for name in self._plan.columns if name in entity.__dict__}
        return self._pairing.values(item)

    def key(self, item: Any) -> Any:
        """
        Return the primary key of a domain object, for a composite one a tuple; None where any part of it is missing.
        """
        if self._to_row is None:
            return self._pairing.key(item)
        key = self._plan.key_of(self._by_hook(item))
        return None if key is None or (isinstance(key, tuple) and None in key) else key

    def _by_hook(self, item: Any) -> Any:
        row = cast("Callable[[Any], Any]", self._to_row)(item)
        return self._plan.model(**row) if isinstance(row, Mapping) else row
