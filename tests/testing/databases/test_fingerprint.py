"""
What makes another template, and what does not.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Enum, Integer, MetaData, Table, event, text

from stillroom import Database, DatabaseSettings
from stillroom.testing.fingerprint import fingerprint
from tests.migrations import shop
from tests.testing.databases.support import seed

if TYPE_CHECKING:
    from pathlib import Path

models = MetaData()


def another_seed(session: Any) -> None:
    session.execute("something else")


def keyed(directory: Path, **options: Any) -> str:
    """
    Return the key of a database with migrations.
    """
    given = {"schema": "migrations", "seeds": (), "facts": ("15.1",)} | options
    settings = DatabaseSettings.from_url("postgresql:///x_test", migrations=str(directory))
    return fingerprint(Database(settings), **given)


def of_models(make: Any, url: str = "postgresql:///x_test") -> str:
    """
    Return the key of a database whose models `make` puts into a MetaData.
    """
    fresh = MetaData()  # a cleared one would remember its types
    make(fresh)
    setattr(sys.modules[__name__], "models", fresh)  # noqa: B010  # where the settings look for it
    settings = DatabaseSettings.from_url(url, metadata=f"{__name__}:models")
    return fingerprint(Database(settings), "create_all", (), ())


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    shop.tables(tmp_path, "a", "b")
    return tmp_path


def test_the_same_state_has_the_same_key(chain: Path) -> None:
    first = keyed(chain)
    path = chain / "versions" / "a.py"
    source = path.read_text()
    path.write_text(source + "\n# more\n")
    assert keyed(chain) != first
    path.write_text(source)
    assert keyed(chain) == first


def test_every_file_of_the_migrations_counts(chain: Path) -> None:
    first = keyed(chain)
    (chain / "env.py").write_text("pass")
    second = keyed(chain)
    (chain / "sql").mkdir()
    (chain / "sql" / "views.sql").write_text("create view x as select 1")
    assert len({first, second, keyed(chain)}) == 3


def test_names_of_files_count(chain: Path) -> None:
    first = keyed(chain)
    (chain / "versions" / "a.py").rename(chain / "versions" / "c.py")
    assert keyed(chain) != first


def test_what_python_and_editors_leave_does_not_count(chain: Path) -> None:
    first = keyed(chain)
    (chain / "versions" / "__pycache__").mkdir()
    (chain / "versions" / "__pycache__" / "a.pyc").write_bytes(b"x")
    (chain / ".a.py.swp").write_bytes(b"x")
    assert keyed(chain) == first


def test_the_server_the_schema_and_the_seeds_count(chain: Path) -> None:
    keys = [
        keyed(chain),
        keyed(chain, facts=("15.2",)),
        keyed(chain, schema="none"),
        keyed(chain, seeds=(seed,)),
        keyed(chain, seeds=(another_seed,)),
        keyed(chain, seeds=(seed, another_seed)),
        keyed(chain, seeds=(partial(with_number, 1),)),
        keyed(chain, seeds=(partial(with_number, 2),)),
        keyed(chain, seeds=(Seed(),)),
    ]
    assert len(set(keys)) == len(keys)


def with_number(number: int, session: Any) -> None:
    session.execute(number)


class Seed:
    """
    A seed that is an object.
    """

    def __call__(self, session: Any) -> None:
        seed(session)


def test_a_seed_without_a_file_counts_by_what_it_does(chain: Path) -> None:
    def typed(statement: str) -> Any:
        names: dict[str, Any] = {"__name__": "typed"}
        exec(f"def made(session):\n    [session.execute({statement!r}) for _ in range(3)]", names)
        return names["made"]

    assert keyed(chain, seeds=(typed("a"),)) == keyed(chain, seeds=(typed("a"),))
    assert keyed(chain, seeds=(typed("a"),)) != keyed(chain, seeds=(typed("b"),))


def test_models_count_by_what_they_make() -> None:
    def plain(metadata: MetaData) -> None:
        Table("a", metadata, Column("id", Integer, primary_key=True), Column("x", Integer))

    def indexed(metadata: MetaData) -> None:
        Table("a", metadata, Column("id", Integer, primary_key=True), Column("x", Integer, index=True))

    def enum(metadata: MetaData) -> None:
        Table("a", metadata, Column("id", Integer, primary_key=True), Column("x", Enum("p", "q", name="kind")))

    def longer_enum(metadata: MetaData) -> None:
        Table("a", metadata, Column("id", Integer, primary_key=True), Column("x", Enum("p", "q", "r", name="kind")))

    def listened(metadata: MetaData) -> None:
        plain(metadata)
        statement = text("CREATE VIEW v AS SELECT 1")
        event.listen(metadata.tables["a"], "after_create", lambda _, connection, **__: connection.execute(statement))

    makers = (plain, indexed, enum, longer_enum, listened)
    assert len({of_models(make) for make in makers}) == len(makers)
    assert of_models(plain) == of_models(plain)
    assert len({of_models(plain, f"{backend}://x/x_test") for backend in ("postgresql", "mysql")}) == 2


def test_a_listener_that_asks_the_server_does_no_harm() -> None:
    def asking(metadata: MetaData) -> None:
        table = Table("a", metadata, Column("id", Integer, primary_key=True), Column("x", Integer, index=True))
        event.listen(table, "after_create", lambda _, connection, **__: connection.scalar("select 1"))

    def asking_more(metadata: MetaData) -> None:
        asking(metadata)
        metadata.tables["a"].append_column(Column("y", Integer))

    def asking_with(*values: str) -> Any:
        def make(metadata: MetaData) -> None:
            asking(metadata)
            metadata.tables["a"].append_column(Column("y", Enum(*values, name="kind")))

        return make

    assert of_models(asking) == of_models(asking)
    makers = (asking, asking_more, asking_with("p", "q"), asking_with("p", "q", "r"))
    assert len({of_models(make) for make in makers}) == len(makers)
