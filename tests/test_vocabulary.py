"""
Tests of the public words: none may be a database's name, and both worlds have the same.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from stillroom import AsyncUnitOfWork, Databases, UnitOfWork
from stillroom.database import Database
from stillroom.propagation import AsyncTransaction, Transaction
from stillroom.settings import RESERVED_NAMES

PAIRS = [(UnitOfWork, AsyncUnitOfWork), (Transaction, AsyncTransaction)]
ONLY_MADE_IN_ASYNCIO: dict[type, set[str]] = {}


def words(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} | {
        name for base in kind.__mro__ for name in getattr(base, "__annotations__", ()) if not name.startswith("_")
    }


def words_of(made: object) -> set[str]:
    return words(type(made)) | {name for name in vars(made) if not name.startswith("_")}


def units() -> list[Any]:
    dbs = Databases({"databases": {"main": {"url": "sqlite://"}}})
    return [dbs.unit_of_work(), dbs.async_unit_of_work(), dbs]


@pytest.mark.parametrize("position", range(3), ids=["UnitOfWork", "AsyncUnitOfWork", "Databases"])
def test_no_database_can_have_the_name_of_a_public_attribute(position: int) -> None:
    assert words_of(units()[position]) - RESERVED_NAMES == set()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].__name__)
def test_both_worlds_have_the_same_words(pair: tuple[type, type]) -> None:
    synchronous, asynchronous = pair
    assert words(synchronous) == words(asynchronous)


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].__name__)
def test_both_worlds_have_the_same_signatures(pair: tuple[type, type]) -> None:
    synchronous, asynchronous = pair
    compared = 0
    for name in sorted(words(synchronous) | {"__init__"}):
        ours, theirs = (inspect.getattr_static(each, name, None) for each in pair)
        if isinstance(ours, property):
            assert isinstance(theirs, property), name
        elif inspect.isfunction(ours):
            assert inspect.isfunction(theirs), name
            assert [each[0] for each in parameters(ours)] == [each[0] for each in parameters(theirs)], name
            assert [each[1] for each in parameters(ours)] == [each[1] for each in parameters(theirs)], name
            assert [repr(each[2]) for each in parameters(ours)] == [repr(each[2]) for each in parameters(theirs)], name
            compared += 1
    assert compared > 0
    assert synchronous is not asynchronous


@pytest.mark.parametrize(
    ("synchronous", "asynchronous"),
    [
        (Databases.unit_of_work, Databases.async_unit_of_work),
        (Databases.transaction, Databases.async_transaction),
        (Databases.close, Databases.aclose),
        (Database.session, Database.async_session),
        (Database.close, Database.aclose),
    ],
    ids=lambda each: each.__qualname__,
)
def test_the_two_forms_take_the_same_arguments(synchronous: Any, asynchronous: Any) -> None:
    assert parameters(synchronous) == parameters(asynchronous)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].__name__)
def test_every_word_is_described(pair: tuple[type, type]) -> None:
    for kind in pair:
        for name in words(kind):
            found = inspect.getattr_static(kind, name, None)
            if inspect.isfunction(found) or isinstance(found, property):
                assert inspect.getdoc(found), f"{kind.__name__}.{name}"
