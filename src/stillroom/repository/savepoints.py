"""Objects that were read anew inside of a savepoint, after a statement that the unit of work did not see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session, SessionTransaction

_KEY = "stillroom_read_in_savepoints"


def expire_with_savepoint(session: Session, entities: Iterable[Any]) -> None:
    """
    Expire objects if the savepoint, or one around it, is rolled back; without one SQLAlchemy expires all of them.

    It does so itself for what a flush has written. These would keep values that the database has no longer, and a
    change back to one of them would not be sent.
    """
    nested = session.get_nested_transaction()
    if nested is None:
        return
    around = []
    while nested is not None and nested.nested:
        around.append(nested)
        nested = nested.parent
    if not event.contains(session, "after_soft_rollback", _expire):
        event.listen(session, "after_soft_rollback", _expire)
    noted = [each for each in session.info.get(_KEY, ()) if any(one.is_active for one in each[0])]
    session.info[_KEY] = [*noted, (around, [ref(entity) for entity in entities])]


def _expire(session: Session, ended: SessionTransaction) -> None:
    kept = []
    for around, refs in session.info.pop(_KEY, ()):
        if not any(each is ended for each in around):
            kept.append((around, refs))
            continue
        for each in refs:
            entity = each()
            if entity is not None and entity in session:
                session.expire(entity)
    if kept:
        session.info[_KEY] = kept
