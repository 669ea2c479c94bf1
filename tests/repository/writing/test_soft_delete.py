"""
Rows that are marked instead of deleted: hidden, counted out, and taken back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, literal, select

from stillroom.errors import NotFound, UniqueViolation
from stillroom.models import InvalidModel
from tests.repository.writing.models import Aliases, Note, Notes, People

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tests.repository.writing.conftest import Shop


def notes(session: Session, *slugs: str) -> list[Note]:
    return Notes(session).add_all(Note(slug=slug) for slug in slugs)


def test_a_deleted_row_is_marked_and_hidden_and_shown_on_demand(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        first, _ = notes(session, "a", "b")
        Notes(session).delete(first.id)
        hidden = Notes(session)
        shown = hidden.with_deleted()
        assert shown.get(first.id) is first
        assert first.deleted_at is not None
        assert first.version == 2
        return hidden.get(first.id), hidden.count(), shown.count(), hidden.exists(slug="a")

    assert shop(body) == (None, 1, 2, False)


def test_what_is_marked_cannot_be_updated_or_deleted_again(shop: Shop) -> None:
    def body(session: Session) -> None:
        (note,) = notes(session, "a")
        Notes(session).delete(note.id)
        for write in (lambda: Notes(session).update(note.id, text="x"), lambda: Notes(session).delete(note.id)):
            with pytest.raises(NotFound):
                write()
        marked_at = note.deleted_at
        Notes(session).with_deleted().delete(note.id)
        assert note.deleted_at == marked_at
        assert Notes(session).with_deleted().update(note.id, text="x").text == "x"

    shop(body)


def test_many_are_marked_and_counted_once(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        first, second, third, fourth = notes(session, "a", "b", "c", "d")
        repository = Notes(session)
        assert repository.delete_many([first.id, first.id, 404]) == 1
        assert repository.delete_where(Note.slug <= "b") == 1
        assert repository.delete_many([first.id, second.id]) == 0
        assert repository.with_deleted().delete_where(all_rows=True) == 2
        return [each.version for each in (first, second, third, fourth)], repository.with_deleted().count()

    assert shop(body) == ([2, 2, 2, 2], 4)


def test_update_where_leaves_marked_rows_alone(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        first, second = notes(session, "a", "b")
        Notes(session).delete(first.id)
        assert Notes(session).update_where(Note.slug >= "a", values={"text": "x"}) == 1
        assert Notes(session).with_deleted().update_where(slug="a", values={"text": "y"}) == 1
        return first.text, second.text

    assert shop(body) == ("y", "x")


def test_what_is_marked_is_hidden_from_statements_that_only_their_conditions_make_read_the_table(shop: Shop) -> None:
    def body(session: Session) -> list[dict[str, Any]]:
        first, _ = notes(session, "a", "b")
        repository = Notes(session)
        repository.delete(first.id)
        there, number = Note.slug <= "b", func.count().label("number")
        assert repository.rows(number, where=there) == [{"number": 1}]
        assert repository.rows(number, text="") == [{"number": 1}]
        assert repository.json(number, where=there) == b'[{"number":1}]'
        assert repository.count(select(number), Note.slug == "a") == 1
        assert repository.exists(select(literal(1)), Note.slug == "a") is False
        assert repository.rows(literal(1).label("one")) == [{"one": 1}]
        return repository.with_deleted().rows(number, where=there)

    assert shop(body) == [{"number": 2}]


def test_restore_takes_a_deletion_back(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        (note,) = notes(session, "a")
        repository = Notes(session)
        repository.delete(note.id)
        restored = repository.restore(note.id)
        assert repository.restore(note.id) is note
        with pytest.raises(NotFound):
            repository.restore(404)
        with pytest.raises(InvalidModel, match="only a model with SoftDelete"):
            People(session).restore(1)
        return restored is note, restored.deleted_at, repository.count()

    assert shop(body) == (True, None, 1)


def test_get_or_create_neither_finds_nor_revives_a_marked_row_but_says_so(shop: Shop) -> None:
    def body(session: Session) -> None:
        (note,) = notes(session, "a")
        Notes(session).delete(note.id)
        with pytest.raises(UniqueViolation, match="softly deleted: restore it, or use with_deleted") as caught:
            Notes(session).get_or_create(slug="a")
        assert (caught.value.model, caught.value.key, caught.value.columns) == (Note, note.id, ("slug",))
        assert isinstance(caught.value.__cause__, UniqueViolation)
        assert Notes(session).with_deleted().get_or_create(slug="a") == (note, False)

    shop(body)


def test_upsert_and_save_bring_a_marked_row_back(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        first, second, third = notes(session, "a", "b", "c")
        repository = Notes(session)
        repository.delete_where(all_rows=True)
        repository.upsert({"slug": "a", "text": "x"}, match=["slug"])
        repository.save(Note(id=second.id, slug="b"))
        repository.with_deleted().upsert({"slug": "c", "text": "x"}, match=["slug"])
        return first.deleted_at, second.deleted_at, third.text, third.deleted_at is None, repository.count()

    assert shop(body) == (None, None, "x", False, 2)


def test_a_partial_index_lets_the_value_of_a_marked_row_be_taken_again(shop: Shop) -> None:
    if shop.backend == "mysql":
        pytest.skip("MariaDB has no partial indexes")

    def body(session: Session) -> tuple[Any, ...]:
        aliases = Aliases(session)
        first = aliases.create(name="a")
        aliases.delete(first.id)
        second, made = aliases.get_or_create(name="a")
        third = aliases.upsert({"name": "a", "target": "x"}, match=["name"])
        return made, second is third, second is first, third.target, aliases.with_deleted().count()

    assert shop(body) == (True, True, False, "x", 2)
