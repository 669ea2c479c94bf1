"""The errors of repositories: our classes, with the model and the key that they are about."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy.exc import DBAPIError

from ..classification import translate
from ..errors import MultipleFound, NotFound
from .keys import complete

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .plan import Plan


def raise_translated(error: DBAPIError, plan: Plan, key: Any = None) -> NoReturn:
    """
    Raise our class for a database error, chained from it; an error that has none goes up as it is.

    Args:
        error: What SQLAlchemy raised.
        plan: The model that it is about.
        key: The primary key that it is about, where one is known.
    """
    ours = translate(error, plan.database)
    if ours is None:
        raise error
    if ours.model is None:
        complete(ours, plan.mapper)
    if key is not None and ours.key is None and ours.model is plan.model:
        ours.key = key
    if ours is error:
        raise ours
    raise ours from error


@contextlib.contextmanager
def about(plan: Plan, key: Any) -> Iterator[None]:
    """
    Name the key in the database errors of the block.
    """
    try:
        yield
    except DBAPIError as error:
        raise_translated(error, plan, key)


def not_found(plan: Plan, what: str, *keys: Any) -> NotFound:
    """
    Make the error for rows that are not there.

    Args:
        plan: The model.
        what: What was looked for, as in "with the key 7".
        *keys: The keys that are missing, where it was looked for by key.
    """
    return NotFound(f"there is no {plan.model.__name__} {what}", model=plan.model, keys=keys)


def multiple_found(plan: Plan) -> MultipleFound:
    """
    Make the error for more than one row where one was asked for.
    """
    name = plan.model.__name__
    return MultipleFound(
        f"more than one {name} fits; narrow the conditions, or use `first` or `list`", model=plan.model
    )
