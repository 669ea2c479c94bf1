"""
Filter objects: what None, nothing and the characters of LIKE mean, and how filters go together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import aliased

from stillroom.models import UnknownColumn
from stillroom.repository.filters import After, AnyOf, Before, Between, In, Not, NotIn, Search
from tests.repository.models import User

if TYPE_CHECKING:
    from tests.repository.worlds import Place

ADA, GRACE, EDSGER, PERCENT = 1, 2, 3, 4
ALL = [ADA, GRACE, EDSGER, PERCENT]
CASES: tuple[tuple[Any, list[int]], ...] = (
    (In(User.id, [1, 3, 9]), [ADA, EDSGER]),
    (In(User.id, None), ALL),
    (In("id", []), []),
    (In("age", [36, None]), [ADA, PERCENT]),
    (In("id", (number for number in (1, 2))), [ADA, GRACE]),
    (NotIn(User.email, ["ada@example.org"]), [GRACE, EDSGER, PERCENT]),
    (NotIn(User.id, None), ALL),
    (NotIn("id", []), ALL),
    (NotIn("age", [36]), [GRACE, EDSGER, PERCENT]),
    (NotIn("age", [36, None]), [GRACE, EDSGER]),
    (NotIn("age", [None]), [ADA, GRACE, EDSGER]),
    (Between(User.age, 36, 72), [ADA, EDSGER]),
    (Between("age", 72), [GRACE, EDSGER]),
    (Between("age", high=36), [ADA]),
    (Between("age"), ALL),
    (Before("age", 72), [ADA]),
    (Before("age", None), ALL),
    (After(User.age, 72), [GRACE]),
    (After(User.age, None), ALL),
    (Search(User.name, "aD"), [ADA]),
    (Search(User.name, "aD", ignoring_case=False), []),
    (Search(User.name, "Ad", ignoring_case=False), [ADA]),
    (Search(User.name, "%"), [PERCENT]),
    (Search(User.name, "0%_"), [PERCENT]),
    (Search(User.name, "_", ignoring_case=False), [PERCENT]),
    (Search([User.name, "email"], "SURE"), [PERCENT]),
    (Search([User.name, "email"], "grace@"), [GRACE]),
    (Search(User.name, None), ALL),
    (Search(User.name, ""), ALL),
    (Search([], "ada"), []),
    (AnyOf(Before("age", 40), User.name == "Edsger"), [ADA, EDSGER]),
    (AnyOf(In("id", None), User.name == "Ada"), [ADA]),
    (AnyOf(In("id", None)), ALL),
    (Not(In("id", [1, 2])), [EDSGER, PERCENT]),
    (Not(User.id == ADA), [GRACE, EDSGER, PERCENT]),
    (Not(In("id", None)), ALL),
    (Not(AnyOf(User.id == ADA, In("id", [2]))), [EDSGER, PERCENT]),
)


def test_filters_find_the_same_on_every_backend(thread_shop: Place) -> None:
    with thread_shop.unit() as uow:
        users = thread_shop.repository(User, uow)
        found = [(case, [each.id for each in users.list(case, order_by="id")]) for case, _ in CASES]
    assert found == list(CASES)


def test_filters_go_with_expressions_and_keywords(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:
        users = sqlite_shop.repository(User, uow)
        assert users.count(After("age", 40), User.id < 3, name="Grace") == 1


def test_whatever_makes_a_condition_is_a_filter(sqlite_shop: Place) -> None:
    class Old:
        def condition(self, model: Any) -> ColumnElement[bool]:
            return model.age > 70  # type: ignore[no-any-return]

    with sqlite_shop.unit() as uow:
        assert sqlite_shop.repository(User, uow).count(Old()) == 2


def test_the_name_of_a_column_means_the_alias_of_an_own_select(sqlite_shop: Place) -> None:
    other = aliased(User)
    with sqlite_shop.unit() as uow:
        assert sqlite_shop.repository(User, uow).count(select(other), After("age", 40)) == 2


def test_a_name_that_is_no_column_is_refused(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow, pytest.raises(UnknownColumn, match="User has no column 'nmae'"):
        sqlite_shop.repository(User, uow).list(In("nmae", ["Ada"]))


def test_an_attribute_alone_is_a_condition_inside_of_a_filter_too(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:
        users = sqlite_shop.repository(User, uow)
        assert (users.count(Not(User.age)), users.count(AnyOf(User.age, User.id == PERCENT))) == (0, 4)


def test_what_is_no_condition_is_refused_inside_of_a_filter_too(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow, pytest.raises(TypeError, match="'age > 3' is no condition"):
        sqlite_shop.repository(User, uow).list(AnyOf("age > 3"))  # type: ignore[arg-type]


def test_the_values_of_a_generator_are_kept_for_the_total(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:
        users = sqlite_shop.repository(User, uow)
        assert users.page(9, 1, In("id", (number for number in (1, 2)))).total == 2


@pytest.mark.parametrize("filter_", [In, NotIn])
def test_one_text_is_no_list_of_values(filter_: Any) -> None:
    with pytest.raises(TypeError, match=r"give a list of them, \['Ada'\]"):
        filter_("name", "Ada")


def test_a_search_in_numbers_is_refused(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow, pytest.raises(TypeError, match=r"User\.age is Integer"):
        sqlite_shop.repository(User, uow).list(Search("age", "3"))
