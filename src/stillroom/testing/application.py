"""A base for classes of tests of a whole application, with the fixtures that Qapla's had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from stillroom import Databases, UnitOfWork

    from .run import TestRun

__all__ = ["ApplicationTests"]


class ApplicationTests:
    """
    What classes of tests of an application inherit from.

    For example::

        class ShopTests(ApplicationTests):
            @classmethod
            def make_application(cls, databases):
                return create_app()

        class TestBasket(ShopTests):
            def test_it_is_empty(self, application, dbsession): ...

    The fixture `application` is the application, made once for each class. No test runs yet then, so a database that is
    used in the making is refused; where it must be, override the fixture with one that asks for `databases`.

    The fixture `dbplugin` is the `Databases`, on the test databases. The fixture `dbsession` is the session of the
    test's unit of work, `uow`, on `database`; the application sees what the test wrote after `uow.commit()`.

    Attributes:
        database: The name of the database of `dbsession`; None for the default one.
    """

    database: str | None = None

    @classmethod
    def make_application(cls, databases: Databases) -> Any:
        """
        Make the application; to be overridden.

        Args:
            databases: The application's, whose settings are already those of the test databases.
        """
        raise NotImplementedError(
            f"{cls.__name__} does not say how its application is made: override make_application(cls, databases)"
        )

    @pytest.fixture(scope="class")
    @classmethod
    def application(cls, test_run: TestRun) -> Any:
        """
        The application.
        """
        return cls.make_application(test_run.databases)

    @pytest.fixture
    def dbplugin(self, databases: Databases) -> Databases:
        """
        The application's Databases.
        """
        return databases

    @pytest.fixture
    def dbsession(self, uow: UnitOfWork) -> Session:
        """
        The session of the test's unit of work.
        """
        return uow.session(self.database)
