"""Pages: by number, by key, and as a web query string asks for them."""

from __future__ import annotations

from .pages import CursorPage, Page, Total, after, page

__all__ = ["CursorPage", "Page", "Total", "after", "page"]
