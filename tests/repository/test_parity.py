"""
The facades of threads and asyncio have the same methods with the same signatures.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from stillroom import (
    AsyncReadRepository,
    AsyncRepository,
    AsyncWriteRepository,
    ReadRepository,
    Repository,
    WriteRepository,
)

PAIRS = ((Repository, AsyncRepository), (ReadRepository, AsyncReadRepository), (WriteRepository, AsyncWriteRepository))


def public(kind: type[Any]) -> dict[str, Any]:
    """
    Return the public attributes of a class, and its constructor.
    """
    names = [name for name in dir(kind) if name == "__init__" or not name.startswith("_")]
    return {name: inspect.getattr_static(kind, name) for name in names}


def unwrapped(function: Any) -> Any:
    return function.__func__ if isinstance(function, classmethod) else function


def shape(function: Any) -> list[tuple[str, Any, Any, str]]:
    """
    Return the parameters with what is the same in both worlds: the annotation of a source is not.
    """
    parameters = inspect.signature(unwrapped(function)).parameters.values()
    return [(each.name, each.kind, each.default, _in_both_worlds(str(each.annotation))) for each in parameters]


def _in_both_worlds(annotation: str) -> str:
    return annotation.replace("AsyncSource", "SyncSource").replace(" | AsyncIterable[Any]", "")


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].__name__)
def test_both_worlds_have_the_same_methods(pair: tuple[Any, Any]) -> None:
    threads, asyncio = map(public, pair)
    assert threads.keys() == asyncio.keys()
    for name in threads:
        if callable(unwrapped(threads[name])):
            assert shape(threads[name]) == shape(asyncio[name]), name


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].__name__)
def test_what_asks_the_database_is_awaited_and_gives_the_same(pair: tuple[Any, Any]) -> None:
    threads, asyncio = map(public, pair)
    for name in threads.keys() - {"__init__", "autocommit", "describe", "with_deleted", "stream"}:
        if inspect.isfunction(threads[name]):
            assert inspect.iscoroutinefunction(asyncio[name]), name
            assert threads[name].__annotations__["return"] == asyncio[name].__annotations__["return"], name


def test_each_asynchronous_method_says_what_it_is_the_form_of() -> None:
    for name, function in public(AsyncRepository).items():
        if inspect.iscoroutinefunction(function):
            origin = function.__qualname__.removeprefix("Async")
            assert (inspect.getdoc(function) or "").startswith(f"Same as `{origin}`, but for asyncio"), name
