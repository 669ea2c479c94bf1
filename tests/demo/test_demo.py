"""`stillroom demo` as users run it: on files, on servers, on the real shop, and where it must refuse."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.command import run
from tests.support import servers

if TYPE_CHECKING:
    from stillroom.testing.servers import PostgresServer

CHINOOK = Path(__file__).parents[2] / "../shared/data/chinook/ChinookData.json"


def demo(directory: Path, *arguments: str) -> Any:
    """
    Run the demo and return its report.
    """
    done = run("demo", "--json", *arguments, cwd=directory)
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert (done.returncode, [check for check in report["checks"] if not check["ok"]]) == (0, [])
    return report


def refusal(directory: Path, *arguments: str) -> str:
    """
    Run the demo where it must refuse, and return what it says.
    """
    done = run("demo", *arguments, cwd=directory)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_the_books_are_in_order_after_a_day_with_accidents(tmp_path: Path) -> None:
    report = demo(tmp_path)
    orders = report["orders"]
    assert report["ok"]
    assert orders["ordered"] == orders["committed"] + orders["failed"] + orders["died"] == 401
    assert orders["died"] == 2
    assert orders["retried"] > 0
    assert report["released"] == 1
    assert {"OutOfStock", "NotEnoughMoney", "RuntimeError", "unique_violation"} <= report["failed"].keys()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """
    A directory in which a small demo kept its files as "shop", and its report.
    """
    directory = tmp_path_factory.mktemp("kept")
    return directory, demo(directory, "--orders", "4", "--processes", "1", "--keep", "shop")


@pytest.fixture
def shop(kept: tuple[Path, Any], tmp_path: Path) -> Path:
    """
    A directory with files that a demo kept as "shop", for one test.
    """
    return Path(shutil.copytree(kept[0], tmp_path, dirs_exist_ok=True))


def test_it_shows_one_unit_of_work_in_order(kept: tuple[Path, Any]) -> None:
    _, report = kept
    sent = [(each["database"], each["text"].split()[0]) for each in report["unit"]]
    assert sent[:2] == [("catalog", "BEGIN"), ("catalog", "UPDATE")]
    assert [each for each in sent if each[1] == "COMMIT"] == [
        ("catalog", "COMMIT"),
        ("sales", "COMMIT"),
        ("log", "COMMIT"),
    ]


def test_the_tables_are_for_people(tmp_path: Path) -> None:
    done = run("demo", "--orders", "4", "--processes", "1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The books are in order." in done.stdout


def test_files_stay_where_they_are_to_be_kept_and_serve_again(shop: Path) -> None:
    demo(shop, "--orders", "4", "--processes", "1", "--keep", "shop")
    with sqlite3.connect(shop / "shop" / "sales.db") as connection:
        (orders,) = connection.execute("select count(*) from orders").fetchone()
    connection.close()
    assert 0 < orders <= 5


@pytest.mark.parametrize("processes", ["1", "3"])
def test_it_runs_on_postgresql_and_mariadb(
    postgresql_database: str, mariadb_database: str, processes: str, tmp_path: Path
) -> None:
    urls = ("--url", f"catalog={postgresql_database}", "--url", f"sales={mariadb_database}")
    report = demo(tmp_path, "--orders", "40", "--processes", processes, *urls)
    assert (report["on_multiple_writes"], report["released"]) == ("ordered", 1)
    assert [each["url"].partition(":")[0] for each in report["databases"]] == ["postgresql", "mysql", "sqlite"]


def test_on_postgresql_that_can_prepare_it_commits_in_two_phases(pg_server: PostgresServer, tmp_path: Path) -> None:
    with (
        servers.postgresql_database(pg_server.url) as catalog,
        servers.postgresql_database(pg_server.url) as sales,
    ):
        report = demo(
            tmp_path, "--orders", "40", "--processes", "2", "--url", f"catalog={catalog}", "--url", f"sales={sales}"
        )
    assert (report["on_multiple_writes"], report["recovered"], report["released"]) == ("two_phase", 1, 0)


@pytest.mark.skipif(not CHINOOK.exists(), reason="the Chinook data set is not beside the project")
def test_it_runs_on_the_real_shop(tmp_path: Path) -> None:
    report = demo(tmp_path, "--orders", "40", "--processes", "2", "--data", str(CHINOOK.resolve()))
    loaded = report["loaded"]
    assert [loaded[table] for table in ("tracks", "customers", "invoices", "invoice_lines")] == [3503, 59, 412, 2240]


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    assert "'nowhere.json' cannot be read" in refusal(tmp_path, "--data", "nowhere.json")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"Genre": [{"GenreId": "one"}]}'])
def test_a_file_of_another_form_is_explained(content: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(content, encoding="utf-8")
    assert "'other.json' is not a data set of the shop" in refusal(tmp_path, "--data", "other.json")


def test_rows_that_refer_to_nothing_are_explained(tmp_path: Path) -> None:
    import stillroom.demo

    data = json.loads((Path(stillroom.demo.__file__).parent / "data.json").read_text(encoding="utf-8"))
    data["Album"][0]["ArtistId"] = 9999
    (tmp_path / "torn.json").write_text(json.dumps(data), encoding="utf-8")
    assert "foreign_key_violation" in refusal(tmp_path, "--data", "torn.json")


def test_a_database_with_other_tables_is_left_as_it_is(any_database: str, tmp_path: Path) -> None:
    from stillroom import Database

    with Database(any_database) as database:
        with database.begin() as connection:
            connection.exec_driver_sql("create table orders (x int)")
        assert "'orders'" in refusal(tmp_path, "--url", f"sales={any_database}")
        with database.begin() as connection:
            assert connection.exec_driver_sql("select count(*) from orders").scalar() == 0


def test_a_table_that_somebody_added_to_the_demo_s_is_not_dropped(shop: Path) -> None:
    connection = sqlite3.connect(shop / "shop" / "sales.db")
    connection.execute("create table precious (x)")
    connection.close()
    assert "'precious'" in refusal(shop, "--keep", "shop")


def test_a_database_of_another_name_is_refused(shop: Path) -> None:
    assert "is the demo's 'sales'" in refusal(shop, "--url", f"catalog=sqlite:///{shop}/shop/sales.db")


def test_an_unknown_database_is_explained(tmp_path: Path) -> None:
    assert "no database 'stock'" in refusal(tmp_path, "--url", "stock=sqlite:///x.db")


def test_a_server_that_is_down_is_explained_without_its_password(tmp_path: Path) -> None:
    said = refusal(tmp_path, "--url", "sales=postgresql://ada:tiger@127.0.0.1:1/shop")
    assert "does not answer" in said
    assert "tiger" not in said
