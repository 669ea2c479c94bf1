"""What can be wrong with a test of an application and its databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillroom import StillroomError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "LeakedTransaction",
    "NotATestDatabase",
    "RepeatedQueries",
    "SandboxError",
    "SandboxTimeout",
    "ServerUnavailable",
    "TestingError",
    "TooManyQueries",
    "UndeclaredDatabase",
]


class TestingError(StillroomError, RuntimeError):
    """
    The base of what the testing toolkit raises.
    """

    __test__ = False


class NotATestDatabase(TestingError):
    """
    A URL, the environment or the database itself says that this is no database for tests; nothing was changed.
    """


class UndeclaredDatabase(TestingError):
    """
    A test touches a database that it did not declare.
    """


class SandboxError(TestingError):
    """
    Something that one shared connection cannot do, and that real connections could.
    """


class SandboxTimeout(SandboxError, TimeoutError):
    """
    A statement waited for the uncommitted writes of another thread or task; the message names it and its line.
    """


class LeakedTransaction(TestingError):
    """
    A test ended and left transactions open.

    Attributes:
        leaks: Each of them: who has it and where it began.
    """

    def __init__(self, message: str, leaks: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.leaks = tuple(leaks)


class TooManyQueries(TestingError, AssertionError):
    """
    A block sent another number of statements than was asserted.
    """


class RepeatedQueries(TestingError, AssertionError):
    """
    One line of the application sent the same statement again and again, with other values (N+1).
    """


class ServerUnavailable(TestingError):
    """
    A server that a test needs is not there and cannot be started; says why. A fixture turns it into a skip.
    """
