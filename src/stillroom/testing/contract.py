"""What every integration of a web framework promises, as a class of tests that each of them inherits."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import CommitPolicy, Databases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TypeAlias

    from stillroom import AsyncUnitOfWork, UnitOfWork

    Call: TypeAlias = Callable[[str], int]

__all__ = ["IntegrationContract"]

NAMES = ("main", "audit", "log")


class Base(DeclarativeBase):
    """
    The base of the contract's model.
    """


class Entry(Base):
    """
    A row of which the parent must exist when it is committed, and not before.
    """

    __tablename__ = "entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent: Mapped[int | None] = mapped_column(ForeignKey("entry.id", deferrable=True, initially="DEFERRED"))


class _Refused(Exception):  # it stands for anything that a view raises
    """
    What the view raises.
    """


@dataclass(frozen=True)
class Seen:
    """
    What the view has seen of its request.

    Attributes:
        unit: The unit of work that is current there.
        is_given: It is the one that the integration gave the view.
        session: Of the database "main".
        request: In the session's `info`.
    """

    unit: Any
    is_given: bool
    session: Any
    request: Any


class Served:
    """
    An application that is running, and its databases: "main", "audit" and the logger "log".

    Args:
        databases: The databases.
        call: Asks the application for a path, and returns the status of the answer.
    """

    def __init__(self, databases: Databases, call: Call) -> None:
        self.databases = databases
        self.call = call

    def rows(self) -> dict[str, int]:
        """
        Count what is durable.
        """
        return {name: self._count(name) for name in NAMES}

    def _count(self, name: str) -> int:
        with self.databases[name].reader_engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(Entry)) or 0


class IntegrationContract:
    """
    Inherit it, and pytest runs the promises of an integration; see `client`.

    ::

        class TestMine(IntegrationContract):
            def client(self, databases, policy):
                app = MyFramework()
                install(app, databases, policy=policy)

                @app.route("/<case>")
                def view(request, case):
                    return Response(status=self.act(request.uow, case))

                yield wsgi_client(app)

    Attributes:
        seen: What the views have seen, in order.
    """

    seen: list[Seen]

    def client(self, databases: Databases, policy: CommitPolicy) -> Iterator[Call]:
        """
        Make an application with one view at `/<case>`, run it, and yield a function that asks it for a path.

        The view answers with the status that `self.act(uow, case)` returns, or `await self.act_async(uow, case)`.
        The function returns the status that a client sees, 500 where the application raises; threads may call it at
        the same time. `stillroom.testing.clients` makes such functions.

        Args:
            databases: For the integration to install.
            policy: When to commit; its veto takes any request and any response.
        """
        raise NotImplementedError(f"{type(self).__name__}.client: make an application, and yield what calls it")

    def act(self, uow: UnitOfWork, case: str) -> int:
        """
        Be the view, and return the status of its answer.
        """
        kind, status = self._start(uow, case)
        uow.main.flush()
        if kind == "commit":
            uow.commit()
            uow.main.add(Entry())
        return self._finish(kind, status)

    async def act_async(self, uow: AsyncUnitOfWork, case: str) -> int:
        """
        Same as `act`, but for asyncio.
        """
        kind, status = self._start(uow, case)
        await uow.main.flush()
        if kind == "commit":
            await uow.commit()
            uow.main.add(Entry())
        return self._finish(kind, status)

    def _start(self, uow: Any, case: str) -> tuple[str, int]:
        kind, _, status = case.partition("-")
        current = uow.databases.current
        self.seen.append(Seen(current, current == uow, uow.main, uow.main.info.get("request")))
        for name in NAMES:
            uow.session(name).add(Entry())
        if kind == "orphan":
            uow.main.add(Entry(parent=-1))
        return kind, int(status)

    def _finish(self, kind: str, status: int) -> int:
        if kind == "raise":
            raise _Refused
        if kind == "inside":
            return self._inner("/write-200")
        return status

    @pytest.fixture
    def serve(self, tmp_path: Path) -> Iterator[Callable[..., Served]]:
        """
        A function that runs an application with new databases and the given options of `CommitPolicy`.

        At the end no connection may be in use, and no unit of work open.
        """
        self.seen = []
        self._inner: Call = lambda _: 404
        served: list[Served] = []
        with contextlib.ExitStack() as stack:

            def serve(**policy: Any) -> Served:
                databases = stack.enter_context(_databases(tmp_path / str(len(served))))
                client = contextlib.contextmanager(self.client)(databases, CommitPolicy(**policy))
                served.append(Served(databases, stack.enter_context(client)))
                return served[-1]

            yield serve
            for each in served:
                assert each.databases.declared.open_units == set(), "units of work are open after their requests"
                pools = {(name, role): pool for name in NAMES for role, pool in each.databases[name].pools().items()}
                assert {key: pool.checkedout() for key, pool in pools.items() if pool.checkedout()} == {}

    def test_the_unit_of_work_is_the_current_one_in_the_view(self, serve: Callable[..., Served]) -> None:
        served = serve()
        assert served.call("/write-200") == 200
        (seen,) = self.seen
        assert seen.is_given
        assert seen.unit.databases is served.databases

    def test_each_request_has_a_unit_of_work_and_sessions_of_its_own(self, serve: Callable[..., Served]) -> None:
        served = serve()
        assert [served.call("/write-200"), served.call("/write-200")] == [200, 200]
        first, second = self.seen
        assert first.unit is not second.unit
        assert first.session is not second.session

    def test_a_session_knows_its_request(self, serve: Callable[..., Served]) -> None:
        served = serve()
        assert [served.call("/write-200"), served.call("/write-200")] == [200, 200]
        first, second = (seen.request for seen in self.seen)
        assert first is not None
        assert first is not second

    @pytest.mark.parametrize("status", [200, 302])
    def test_an_answer_below_400_commits_all_databases(self, serve: Callable[..., Served], status: int) -> None:
        served = serve()
        assert served.call(f"/write-{status}") == status
        assert served.rows() == {"main": 1, "audit": 1, "log": 1}

    @pytest.mark.parametrize("status", [400, 500])
    def test_an_answer_of_400_or_more_keeps_only_the_log(self, serve: Callable[..., Served], status: int) -> None:
        served = serve()
        assert served.call(f"/write-{status}") == status
        assert served.rows() == {"main": 0, "audit": 0, "log": 1}

    def test_an_exception_keeps_only_the_log(self, serve: Callable[..., Served]) -> None:
        served = serve()
        assert served.call("/raise-200") >= 500
        assert served.rows() == {"main": 0, "audit": 0, "log": 1}

    def test_a_commit_that_fails_is_an_error_for_the_client(self, serve: Callable[..., Served]) -> None:
        served = serve()
        assert served.call("/orphan-200") >= 400
        assert served.rows()["main"] == 0

    def test_a_commit_that_fails_leaves_the_next_request_alone(self, serve: Callable[..., Served]) -> None:
        served = serve()
        assert served.call("/orphan-200") >= 400
        assert served.call("/write-200") == 200
        assert served.rows()["main"] == 1

    def test_by_hand_only_what_the_view_committed_is_kept(self, serve: Callable[..., Served]) -> None:
        served = serve(commit="manual")
        assert [served.call("/write-200"), served.call("/commit-200")] == [200, 200]
        assert served.rows()["main"] == 1

    def test_by_hand_the_status_does_not_matter(self, serve: Callable[..., Served]) -> None:
        served = serve(commit="manual")
        assert served.call("/commit-409") == 409
        assert served.rows()["main"] == 1

    def test_a_veto_rolls_back_and_changes_nothing_about_the_answer(self, serve: Callable[..., Served]) -> None:
        served = serve(veto=lambda *_: True)
        assert served.call("/write-200") == 200
        assert served.rows()["main"] == 0

    def test_a_veto_is_not_asked_about_an_answer_that_is_rolled_back_anyway(self, serve: Callable[..., Served]) -> None:
        asked: list[object] = []

        def allow(request: object, response: object) -> bool:
            asked.append(response)
            return False

        served = serve(veto=allow)
        assert [served.call("/write-404"), served.call("/write-200")] == [404, 200]
        assert len(asked) == 1

    def test_a_veto_that_fails_is_an_error_for_the_client(self, serve: Callable[..., Served]) -> None:
        def fail(request: object, response: object) -> bool:
            raise _Refused

        served = serve(veto=fail)
        assert served.call("/write-200") >= 500
        assert served.rows()["main"] == 0

    def test_applications_with_the_same_names_of_databases_do_not_meet(self, serve: Callable[..., Served]) -> None:
        outer, inner = serve(), serve()
        self._inner = inner.call
        assert outer.call("/inside-200") == 200
        assert [seen.unit.databases for seen in self.seen] == [outer.databases, inner.databases]
        assert all(seen.is_given for seen in self.seen)
        assert [outer.rows()["main"], inner.rows()["main"]] == [1, 1]

    def test_an_outer_request_that_fails_does_not_undo_the_inner_one(self, serve: Callable[..., Served]) -> None:
        outer, inner = serve(veto=lambda *_: True), serve()
        self._inner = inner.call
        assert outer.call("/inside-200") == 200
        assert [outer.rows()["main"], inner.rows()["main"]] == [0, 1]

    def test_requests_at_the_same_time_are_kept_as_they_were_answered(self, serve: Callable[..., Served]) -> None:
        served = serve()
        cases = ["/write-200", "/write-500", "/raise-200", "/orphan-200"] * 8
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(served.call, cases))
        assert [answer < 400 for answer in answers] == [True, False, False, False] * 8
        assert len({id(seen.unit) for seen in self.seen}) == len(cases)
        assert served.rows()["main"] == 8


@contextlib.contextmanager
def _databases(directory: Path) -> Iterator[Databases]:
    directory.mkdir()
    declared: dict[str, dict[str, Any]] = {name: {"url": f"sqlite:///{directory / name}.db"} for name in NAMES}
    declared["log"]["role"] = "logger"
    with Databases({"databases": declared}) as databases:
        for name in NAMES:
            Base.metadata.create_all(databases[name].engine)
        yield databases
