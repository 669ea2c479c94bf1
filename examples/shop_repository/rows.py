# ruff: noqa: INP001  # part of a script, not of a package
"""The tables that the shop's orders are kept in, as a database wants them."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from stillroom.models import ModelBase, Timestamps, Version


class Base(ModelBase, DeclarativeBase, database="main"):
    """The base of all tables."""


class CustomerRow(Base):
    """A customer."""

    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(60))
    email: Mapped[str] = mapped_column(String(60), unique=True)
    last_seen: Mapped[datetime | None]


class InvoiceLineRow(Base):
    """A line of an invoice, by its number."""

    __tablename__ = "invoice_line"
    invoice_id: Mapped[int] = mapped_column(ForeignKey("invoice.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    track: Mapped[str] = mapped_column(String(200))
    unit_price: Mapped[Decimal]
    quantity: Mapped[int]


class InvoiceRow(Timestamps, Version, Base):
    """An invoice: what the shop calls an order."""

    __tablename__ = "invoice"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=True)
    state: Mapped[str] = mapped_column(String(10), index=True)
    total: Mapped[Decimal]
    billing_address: Mapped[str | None] = mapped_column(String(70))
    billing_city: Mapped[str | None] = mapped_column(String(40))
    billing_country: Mapped[str | None] = mapped_column(String(40))
    customer: Mapped[CustomerRow] = relationship()
    lines: Mapped[list[InvoiceLineRow]] = relationship(cascade="all, delete-orphan", order_by=InvoiceLineRow.number)
