"""What keeps the demo from running."""

from __future__ import annotations

from stillroom import StillroomError

__all__ = ["DemoError"]


class DemoError(StillroomError, ValueError):
    """
    The demo cannot run as it was asked to: the data file, an option or a database does not fit.
    """
