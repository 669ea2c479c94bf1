"""A music shop over two databases and a log: `stillroom demo` runs it, and its code is the first to read."""

from __future__ import annotations

from stillroom.demo.problems import DemoError
from stillroom.demo.report import Report
from stillroom.demo.running import Options, run

__all__ = ["DemoError", "Options", "Report", "run"]
