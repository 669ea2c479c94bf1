"""Lists for the web: filters, search, order and page from a query string, over declared fields and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode

from sqlalchemy import or_

from ...models.matching import contains, is_text
from ..plan import Plan
from .cursors import LONGEST
from .pages import CursorPage, Page
from .parameters import RESERVED, Field, converted, single, whole, wrong

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import ColumnElement

    from .totals import Total

__all__ = ["Field", "Limits", "ListQuery", "Listing"]

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)

_LAST_PAGE = 1_000_000_000
"""Offsets stay within 64 bits."""


class SupportsPage(Protocol[P_co]):
    """
    A repository of either world, as far as `Listing.page` needs it.
    """

    def page(self, number: int = ..., size: int = ..., *where: Any, **options: Any) -> P_co:
        """
        Return a page by its number, or what is awaited for it.
        """
        ...


class SupportsAfter(Protocol[P_co]):
    """
    A repository of either world, as far as `Listing.after` needs it.
    """

    def after(self, cursor: str | None = ..., size: int = ..., *where: Any, **options: Any) -> P_co:
        """
        Return the page that follows a cursor, or what is awaited for it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """
    How much a query string may ask for.

    Attributes:
        size: How many items a page has where nothing is said.
        largest: How many it may have.
        length: How many characters a value may have.
        values: How many values there may be in all.
    """

    size: int = 50
    largest: int = 200
    length: int = 200
    values: int = 100


@dataclass(frozen=True, slots=True)
class Listing:
    """
    What a query string asks for, checked.

    Attributes:
        where: Conditions.
        order_by: The order, or None.
        number: The page, counted from 1.
        size: How many items it has.
        cursor: The cursor, or None.
        total: The kind of total.
        pairs: What was given, without what was empty.
    """

    where: tuple[ColumnElement[bool], ...]
    order_by: Any
    number: int
    size: int
    cursor: str | None
    total: Total
    pairs: tuple[tuple[str, str], ...]

    def page(self, repository: SupportsPage[P], *where: Any, **options: Any) -> P:
        """
        Return `repository.page(…)` for what is asked; with an asynchronous repository, await it.

        Args:
            repository: The repository.
            *where: Conditions of the application's own, or its `select()`; the rows that the user may see at all.
            **options: As for `page` of the repository.

        Raises:
            InvalidListQuery: A cursor is given.
        """
        if self.cursor is not None:
            raise wrong("cursor", self.cursor, "this list has numbered pages; give 'page'")
        options = {"total": self.total, "order_by": self.order_by} | options
        return repository.page(self.number, self.size, *where, *self.where, **options)

    def after(self, repository: SupportsAfter[P], *where: Any, **options: Any) -> P:
        """
        Same as `page`, but by cursor: `repository.after(…)`.

        Raises:
            InvalidListQuery: The number of a page is given.
            InvalidCursor: The cursor was changed, or belongs to another order.
        """
        for name, value in self.pairs:
            if name == "page":
                raise wrong(name, value, "this list has no numbered pages; give 'cursor', or nothing to begin")
        return repository.after(self.cursor, self.size, *where, *self.where, order_by=self.order_by, **options)

    def next_link(self, page: Page[Any] | CursorPage[Any]) -> str | None:
        """
        Return the query string of the next page, or None on the last one.
        """
        if isinstance(page, CursorPage):
            return self._link("cursor", page.next_cursor)
        return self._link("page", page.number + 1 if page.has_next else None)

    def previous_link(self, page: Page[Any] | CursorPage[Any]) -> str | None:
        """
        Return the query string of the page before, or None on the first one.
        """
        if isinstance(page, CursorPage):
            return self._link("cursor", page.previous_cursor)
        last = page.number - 1 if page.pages is None else min(page.number - 1, page.pages)
        return self._link("page", last or None)

    def _link(self, name: str, value: Any) -> str | None:
        if value is None:
            return None
        return urlencode([*(pair for pair in self.pairs if pair[0] not in {"page", "cursor"}), (name, value)])


class ListQuery:
    """
    What may be asked of a list, declared once, and read from query strings by `parse`.

    ::

        USERS = ListQuery(User, filters=["active", Field(User.age, "ge", "le")], search=["name"], sort=["name"])

        listing = USERS.parse("q=ada&age__ge=18&sort=-name&page=2")
        page = listing.page(Users(uow))

    The parameters are `name` or `name__operator` for filters, `q` for the search, `sort` with names between commas
    ("-name" is descending), `size`, and `page` or `cursor`. An empty one counts as absent: so forms send what was not
    filled in. `name=a&name=b`, or `name__in=a,b`, finds either.

    Args:
        model: The mapped class.
        filters: Fields, attributes or their names.
        search: The text columns that `q` is looked for in: each word must be in one of them, whatever its case.
        sort: What may be sorted by: attributes or their names.
        order_by: The order where none is asked for, as for `Repository.list`.
        limits: How much may be asked for.
        total: The kind of total of numbered pages.

    """

    def __init__(
        self,
        model: type[Any],
        *,
        filters: Iterable[Any] = (),
        search: Iterable[Any] = (),
        sort: Iterable[Any] = (),
        order_by: Any = None,
        limits: Limits | None = None,
        total: Total = "exact",
    ) -> None:
        self.model = model
        self.order_by = order_by
        self.limits = limits or Limits()
        self.total: Total = total
        self._filters, self._search, self._sort = tuple(filters), tuple(search), tuple(sort)

    # Found out at the first use: a list is declared before all models are imported.

    @cached_property
    def fields(self) -> dict[str, Field]:
        """
        What may be filtered by, by its name in the query string.
        """
        fields = [(each if isinstance(each, Field) else Field(each)).of(self._attribute) for each in self._filters]
        return {each.name: each for each in fields}

    @cached_property
    def search(self) -> list[Any]:
        """
        The columns that are searched.
        """
        columns = list(map(self._attribute, self._search))
        for each in columns:
            if not is_text(each.type):
                raise TypeError(f"{each} cannot be searched: it is no text")
        return columns

    @cached_property
    def sort(self) -> dict[str, Any]:
        """
        What may be sorted by, by name.
        """
        return {each.key: each for each in map(self._attribute, self._sort)}

    @cached_property
    def parameters(self) -> list[str]:
        """
        The names of everything that a query string may have.
        """
        absent = [name for name, there in (("sort", self.sort), ("q", self.search)) if not there]
        own = [name for each in self.fields.values() for name in each.parameters()]
        return [*own, *(name for name in RESERVED if name not in absent)]

    def _attribute(self, each: Any) -> Any:
        return Plan(self.model).column(each) if isinstance(each, str) else each

    def parse(self, query: str | bytes | Mapping[str, Any] | Iterable[tuple[str, str]], /) -> Listing:
        """
        Read what is asked for.

        Args:
            query: A query string; or a mapping of names to values or lists of values, such as the multi-dictionaries of
                web frameworks; or pairs.

        Raises:
            InvalidListQuery: Something is asked for that is not declared, or a value does not fit; the error names the
                parameter, the value, and what is allowed.
            UnknownColumn: The model has no column that is declared.
            TypeError: A column cannot be used as it is declared.
            ValueError: It has not the operators that are declared.
        """
        pairs = self._pairs(query)
        given: dict[str, list[str]] = {}
        for name, value in pairs:
            given.setdefault(name, []).append(value)
        where = [self._filter(name, values) for name, values in given.items() if name not in RESERVED]
        one = {name: single(name, given[name]) for name in ("page", "size", "cursor", "q") if name in given}
        if "page" in one and "cursor" in one:
            raise wrong("page", one["page"], "there is a cursor as well; give one of the two")
        where += [self._word(word) for word in converted(str, "text", "q", one.get("q", "")).split()]
        return Listing(
            where=tuple(where),
            order_by=self._order(given["sort"]) if "sort" in given else self.order_by,
            number=whole("page", one.get("page", "1"), _LAST_PAGE),
            size=whole("size", one["size"], self.limits.largest) if "size" in one else self.limits.size,
            cursor=one.get("cursor"),
            total=self.total,
            pairs=pairs,
        )

    def _pairs(self, query: Any) -> tuple[tuple[str, str], ...]:
        known = self.parameters
        if isinstance(query, bytes):
            query = query.decode("latin-1")  # what is beyond ASCII is percent-encoded
        if isinstance(query, str):
            query = parse_qsl(query.removeprefix("?"), keep_blank_values=True)
        elif hasattr(query, "keys"):
            query = _flat(query)
        pairs: list[tuple[str, str]] = []
        for name, value in query:
            if name not in known:
                raise wrong(name, None, f"there is no such parameter; there are {', '.join(known)}")
            longest = LONGEST if name == "cursor" else self.limits.length
            if len(value) > longest:
                raise wrong(name, value, f"it has {len(value)} characters, and {longest} are the most")
            if len(pairs) == self.limits.values:
                raise wrong(name, value, f"there are more than {self.limits.values} values")
            if value:
                pairs.append((name, value))
        return tuple(pairs)

    def _filter(self, parameter: str, values: list[str]) -> ColumnElement[bool]:
        if parameter in self.fields:
            return self.fields[parameter].condition("eq", parameter, values)
        name, _, operator = parameter.rpartition("__")
        return self.fields[name].condition(operator, parameter, values)

    def _word(self, word: str) -> ColumnElement[bool]:
        return or_(*(contains(column, word, ignoring_case=True) for column in self.search))

    def _order(self, texts: list[str]) -> list[Any]:
        order: dict[str, Any] = {}
        for each in ",".join(texts).split(","):
            name = each.removeprefix("-")
            if name not in self.sort:
                known = ", ".join(self.sort)
                raise wrong("sort", each, f"that is no order; there are {known}, and each with '-' before it")
            if name in order:
                raise wrong("sort", each, "it is named twice")
            order[name] = self.sort[name].desc() if each.startswith("-") else self.sort[name]
        return list(order.values())


def _flat(query: Any) -> Iterator[tuple[str, str]]:
    """
    Return the pairs of a mapping, of which web frameworks have several kinds.
    """
    every = getattr(query, "getlist", None) or getattr(query, "getall", None) or query.__getitem__
    for name in dict.fromkeys(query):
        values = every(name)
        for value in values if isinstance(values, list | tuple) else [values]:
            yield str(name), str(value)
