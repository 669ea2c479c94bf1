"""
Tests of points in time: aware in, aware out, to the microsecond, on every backend.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import stillroom.models
from stillroom.models import InexactDecimal, ModelBase, NaiveDatetime, UTCDateTime, UTCNow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

EAST = timezone(timedelta(hours=2))
NOON = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=EAST)


class Base(ModelBase, DeclarativeBase, database="main"):
    """
    The base of the models in this file.
    """


class Moment(Base):
    """
    A table with a point in time.
    """

    __tablename__ = "moment"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime | None]


class Price(Base):
    """
    A table with a decimal number.
    """

    __tablename__ = "price"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[Decimal]


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session


def stored(session: Session, at: datetime | None) -> datetime | None:
    session.add(Moment(id=1, at=at))
    session.commit()
    return session.get_one(Moment, 1).at


def test_a_point_in_time_comes_back_in_utc_to_the_microsecond(session: Session) -> None:
    found = stored(session, NOON)
    assert found == NOON
    assert found is not None
    assert found.tzinfo is UTC


def test_null_stays_null(session: Session) -> None:
    assert stored(session, None) is None


def test_the_time_zone_of_a_postgresql_session_does_not_matter(postgresql_engine: Engine) -> None:
    Base.metadata.create_all(postgresql_engine)
    with Session(postgresql_engine) as session:
        session.execute(sa.text("SET TIME ZONE 'Asia/Tokyo'"))
        session.add(Moment(id=1, at=NOON))
        session.flush()
        session.expire_all()
        found = session.get_one(Moment, 1).at
        assert found == NOON
        assert found is not None
        assert found.tzinfo is UTC


def test_times_of_other_zones_compare_as_points_in_time(session: Session) -> None:
    stored(session, NOON)
    same = NOON.astimezone(timezone(timedelta(hours=-5)))
    assert session.scalars(sa.select(Moment.id).where(Moment.at == same)).all() == [1]
    assert session.scalars(sa.select(Moment.id).where(Moment.at < same)).all() == []


def test_a_naive_time_is_refused_with_the_remedy(session: Session) -> None:
    with pytest.raises(NaiveDatetime, match=r"datetime\.now\(UTC\)") as caught:
        stored(session, NOON.replace(tzinfo=None))
    assert isinstance(caught.value, ValueError)


def test_a_naive_time_is_refused_in_a_condition(session: Session) -> None:
    with pytest.raises(NaiveDatetime):
        session.scalars(sa.select(Moment).where(Moment.at > NOON.replace(tzinfo=None))).all()


def test_the_servers_time_is_utc_even_where_its_session_is_elsewhere(session: Session) -> None:
    zone = {"postgresql": "SET TIME ZONE 'Asia/Tokyo'", "mariadb": "SET time_zone = '+09:00'"}
    zone["mysql"] = zone["mariadb"]
    statement = zone.get(session.get_bind().dialect.name)
    if statement:
        session.execute(sa.text(statement))
    found = session.scalars(sa.select(UTCNow())).one()
    assert abs(datetime.now(UTC) - found) < timedelta(seconds=30)


def test_the_servers_time_is_compared_with_stored_times(session: Session) -> None:
    stored(session, datetime.now(UTC) - timedelta(minutes=1))
    assert session.scalars(sa.select(Moment.id).where(Moment.at < UTCNow())).all() == [1]
    assert session.scalars(sa.select(Moment.id).where(Moment.at > UTCNow())).all() == []


def test_a_duration_is_subtracted_from_a_point_in_time(postgresql_engine: Engine) -> None:
    Base.metadata.create_all(postgresql_engine)
    with Session(postgresql_engine) as session:
        stored(session, NOON)
        assert session.scalars(sa.select(Moment.at - timedelta(hours=1))).one() == NOON - timedelta(hours=1)


def test_the_repr_of_the_type_makes_the_type_again_in_a_migration() -> None:
    made = eval(f"models.{UTCDateTime()!r}", {"models": stillroom.models})
    assert isinstance(made, UTCDateTime)


def add_prices(session: Session, *amounts: str) -> None:
    session.add_all([Price(amount=Decimal(amount)) for amount in amounts])
    session.commit()


def test_decimal_numbers_come_back_as_they_were(session: Session) -> None:
    amounts = ["12345678.99", "0.1", "-0.05", "1000000000000.25", "7"]
    add_prices(session, *amounts)
    found = session.scalars(sa.select(Price.amount).order_by(Price.id)).all()
    assert found == [Decimal(amount) for amount in amounts]
    assert {type(amount) for amount in found} == {Decimal}


def test_sums_of_decimal_numbers_are_right_to_the_cent(session: Session) -> None:
    add_prices(session, *["0.10"] * 30, *["0.20"] * 30)
    assert session.scalars(sa.select(sa.func.sum(Price.amount))).one() == Decimal(9)


def test_decimal_numbers_are_compared_and_multiplied_by_the_server(session: Session) -> None:
    add_prices(session, "9.99", "10.01")
    assert session.scalars(sa.select(Price.amount * 3).where(Price.amount < 10)).all() == [Decimal("29.97")]


@pytest.mark.parametrize("amount", ["1234567890.123456", f"0.1{'0' * 30}1", "NaN", "Infinity"])
def test_sqlite_is_not_given_what_it_would_change(sqlite_engine: Engine, amount: str) -> None:
    Base.metadata.create_all(sqlite_engine)
    with Session(sqlite_engine) as session, pytest.raises(InexactDecimal, match="Round it"):
        add_prices(session, amount)
