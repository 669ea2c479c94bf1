"""
The same test, kept from the others by other libraries, each in the way that its own documentation shows.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import make_url

from .isolation import body, driven, equip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .isolation import Place
    from .measuring import Work


@contextlib.contextmanager
def flask_sqlalchemy_lite(place: Place) -> Iterator[Work]:
    """
    Flask-SQLAlchemy-Lite's `test_isolation`.

    Raises:
        ImportError: It is not there, or it has no such thing.
    """
    from flask import Flask
    from flask_sqlalchemy_lite import SQLAlchemy

    if not hasattr(SQLAlchemy, "test_isolation"):
        raise ImportError("it has no test_isolation before 0.2")
    app = Flask("benchmarks")
    app.config["SQLALCHEMY_ENGINES"] = {"default": driven(place.url)}
    extension = SQLAlchemy(app)
    with app.app_context():
        engine = equip(extension.engine, place)

    def test() -> None:
        with extension.test_isolation(), app.app_context():
            body(extension.session)

    try:
        yield test
    finally:
        engine.dispose()


@contextlib.contextmanager
def django(place: Place) -> Iterator[Work]:
    """
    Django's `TestCase`, entered and left as the fixture `db` of pytest-django does.

    Raises:
        ImportError: It is not there.
    """
    from django.conf import settings
    from django.db import connections, transaction

    if not settings.configured:
        _configure_django()
    url = make_url(place.url)
    given: dict[str, Any] = {"ENGINE": "django.db.backends.sqlite3", "NAME": url.database}
    if not place.is_file:
        where = {"HOST": url.host, "PORT": url.port or 5432, "USER": url.username, "PASSWORD": url.password or ""}
        given |= {"ENGINE": "django.db.backends.postgresql", **where}
    connections.settings = connections.configure_settings({"default": given})
    models, case = _django_models(), _django_case()

    def work() -> None:
        first, second, third = models
        with transaction.atomic():
            one = first.objects.create(name="first")
            two = second.objects.create(name="second", parent=one)
            third.objects.create(name="third", parent=two)
        assert len(list(third.objects.all())) == 1

    try:
        yield lambda: case(work)
    finally:
        connections["default"].close()
        del connections["default"]


def _configure_django() -> None:
    import django as package
    from django.conf import settings

    settings.configure(DATABASES={}, DEFAULT_AUTO_FIELD="django.db.models.AutoField", USE_TZ=True)
    package.setup()


_made: list[Any] = []


def _django_models() -> list[Any]:
    from django.db import models

    if _made:
        return _made  # Django knows a model by its name, and makes it once
    for number, name in enumerate(("DjangoFirst", "DjangoSecond", "DjangoThird")):
        meta = type("Meta", (), {"app_label": "benchmarks", "db_table": f"table_{number}", "managed": False})
        fields: dict[str, Any] = {"name": models.CharField(max_length=50), "Meta": meta, "__module__": __name__}
        if _made:
            fields["parent"] = models.ForeignKey(_made[-1], on_delete=models.DO_NOTHING)
        _made.append(type(name, (models.Model,), fields))
    return _made


def _django_case() -> Callable[[Work], None]:
    from django.test import TestCase

    def run(work: Work) -> None:
        class Case(TestCase):
            """
            A class for each test, as pytest-django has; the transaction of a class is left out, as there.
            """

            @classmethod
            def setUpClass(cls) -> None:
                super(TestCase, cls).setUpClass()

            @classmethod
            def tearDownClass(cls) -> None:
                super(TestCase, cls).tearDownClass()

        Case.setUpClass()
        case: Any = Case(methodName="__init__")
        case._pre_setup()  # noqa: SLF001  # Django's fixture of one test has no other entrance
        try:
            work()
        finally:
            case._post_teardown()  # noqa: SLF001  # as above
            Case.tearDownClass()
            Case.doClassCleanups()

    return run


ISOLATING = (
    ("Django's TestCase, as pytest-django enters it", django),
    ("Flask-SQLAlchemy-Lite, test_isolation", flask_sqlalchemy_lite),
)
"""Names and ways."""
