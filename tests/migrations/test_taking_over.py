"""A history that plain Alembic, or Flask-Migrate, made: nine revisions are taken over where their databases stand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from stillroom import Database, Databases
from stillroom.migrations import check, downgrade, history, plan, revision, squash, status, upgrade
from tests.migrations.legacy import ENV, SETTINGS_ENV, write_history

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = {"metadata": "tests.migrations.legacy:models"}


@pytest.fixture
def legacy(any_database: str, tmp_path: Path) -> Iterator[tuple[str, Path, Config]]:
    """
    A database that Alembic, with an `env.py` of its own, brought to the sixth of nine revisions.
    """
    directory = tmp_path / "migrations"
    database = Database(any_database)
    url = database.engine.url.render_as_string(hide_password=False)
    database.close()
    config = Config()
    config.set_main_option("script_location", str(directory))
    config.set_main_option("sqlalchemy.url", url)
    config.set_main_option("path_separator", "os")
    with (tmp_path / "printed").open("w") as printed:
        config.print_stdout = lambda text, *rest: print(text, *rest, file=printed)  # type: ignore[method-assign]
        (directory / "versions").mkdir(parents=True)
        (directory / "env.py").write_text(ENV, encoding="utf-8")
        write_history(directory / "versions")
        command.upgrade(config, "0006")
        yield any_database, directory, config


def test_the_history_goes_on_where_the_database_stands(legacy: tuple[str, Path, Config], tmp_path: Path) -> None:
    url, directory, _ = legacy
    given = {"databases": {"main": {"url": url, "migrations": str(directory), **MODELS}}}
    with Databases(given) as dbs:
        assert len(history(dbs)) == 9
        assert status(dbs)[0].current == ("0006",)
        assert sorted(each.revision for each in plan(dbs)) == ["0007a", "0007b", "0008"]
        assert upgrade(dbs)[0].revisions[-1] == "0008"
        assert check(dbs) == []
        assert revision(dbs, "nothing", autogenerate=True) == []
        with dbs.main.connect() as connection:
            assert connection.execute(text("select slug from post order by id")).scalars().all() == ["first-post"]
        downgrade(dbs, "0005")
        upgrade(dbs)
        squash(dbs, "main", revision="0008")
        assert check(dbs) == []


def test_alembic_goes_on_beside(
    legacy: tuple[str, Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, directory, config = legacy
    monkeypatch.chdir(tmp_path)
    Path("stillroom.toml").write_text(
        f'[databases.main]\nurl = "{url}"\nmigrations = "migrations"\nmetadata = "{MODELS["metadata"]}"\n'
    )
    (directory / "env.py").write_text(SETTINGS_ENV, encoding="utf-8")
    command.upgrade(config, "0007a")
    dbs = Databases()
    dbs.configure()
    with dbs:
        assert status(dbs)[0].current == ("0007a",)
        upgrade(dbs)
        command.check(config)
        command.downgrade(config, "0006")
        assert status(dbs)[0].current == ("0006",)
