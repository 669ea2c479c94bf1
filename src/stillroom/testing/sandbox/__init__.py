"""The sandbox: all connections of a database share one transaction, which is never committed."""

from .sandbox import Sandbox

__all__ = ["Sandbox"]
