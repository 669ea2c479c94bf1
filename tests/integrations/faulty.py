"""
The applications of `outcomes` for real servers, on a PostgreSQL that lets requests fail at COMMIT.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from sqlalchemy import FetchedValue, ForeignKey, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import Databases
from tests.integrations.outcomes import (
    Desk,
    Unhandled,
    fastapi_app,
    flask_app,
    pyramid_app,
    pyramid_tm_app,
    starlette_app,
    threaded_app,
    wsgi_app,
)

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "STILLROOM_TEST_FAULTY"
"""The environment variable with the URL of the database."""
TAKEN = 0
"""The number of the row that is there from the beginning."""
GATE = 4711
"""The advisory lock behind which `skew` waits at its COMMIT."""

SCHEMA = (
    """
    CREATE TABLE asked (
        number integer PRIMARY KEY,
        kind text NOT NULL,
        parent integer REFERENCES asked DEFERRABLE INITIALLY DEFERRED,
        worker integer NOT NULL,
        backend integer NOT NULL DEFAULT pg_backend_pid(),
        in_use integer NOT NULL
    )
    """,
    f"""
    CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.kind = 'kill' THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
        ELSIF NEW.kind = 'skew' THEN
            PERFORM count(*) FROM asked;
            PERFORM pg_advisory_xact_lock({GATE});
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON asked DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION at_commit()
    """,
)


class Base(DeclarativeBase):
    """
    The base of the model.
    """


class Asked(Base):
    """
    One request: who answered it on which connection, and how many connections that worker had in use before.
    """

    __tablename__ = "asked"
    number: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    parent: Mapped[int | None] = mapped_column(ForeignKey("asked.number", deferrable=True, initially="DEFERRED"))
    worker: Mapped[int]
    backend: Mapped[int] = mapped_column(FetchedValue())
    in_use: Mapped[int]


class FaultyDesk(Desk):
    """
    Views that always want to answer 200, apart from `missing` and `raised`; COMMIT fails for some of them.
    """

    def write(self, uow: Any, case: str, number: int = 200) -> int:
        in_use = sum(pool.checkedout() for pool in self.databases.main.pools().values())
        key = TAKEN if case == "unique" else number
        parent = -1 if case == "orphan" else None
        uow.main.add(Asked(number=key, kind=case, parent=parent, worker=os.getpid(), in_use=in_use))
        if case == "die":
            uow.main.execute(update(Asked).where(Asked.number == TAKEN).values(in_use=-1))
            os.kill(os.getpid(), signal.SIGKILL)
        if case == "touch":
            uow.main.execute(update(Asked).where(Asked.number == TAKEN).values(in_use=0))
        if case == "raised":
            raise Unhandled
        return 404 if case == "missing" else 200


def _make(build: Callable[[Desk], Any]) -> Any:
    declared = {"url": os.environ[URL], "isolation": "SERIALIZABLE", "pool_size": 3, "max_overflow": 2}
    databases = Databases({"databases": {"main": declared}})
    # What must not be shared with the workers that are forked later: a connection that was used here.
    with databases.unit_of_work() as uow:
        for statement in SCHEMA:
            uow.main.execute(text(statement))
        uow.main.add(Asked(number=TAKEN, kind="preload", worker=os.getpid(), in_use=0))
    return build(FaultyDesk(databases))


def wsgi() -> Any:
    return _make(wsgi_app)


def flask() -> Any:
    return _make(flask_app)


def pyramid() -> Any:
    return _make(pyramid_app)


def pyramid_tm() -> Any:
    return _make(pyramid_tm_app)


def starlette() -> Any:
    return _make(starlette_app)


def fastapi() -> Any:
    return _make(fastapi_app)


def threaded() -> Any:
    return _make(threaded_app)
