"""Which tables autogenerate may touch: the models' own, and those that this chain of revisions once named."""

from __future__ import annotations

import ast
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .chain import Chain

__all__ = ["Owned"]

NEVER = {"stillroom_migrations", "stillroom_commits", "stillroom_once", "stillroom_environment"}
"""Stillroom's own tables."""


_MADE = re.compile(r"\bcreate\s+(?:or\s+replace\s+)?(?:view|type)\s+(?:if\s+not\s+exists\s+)?(\S+)", re.IGNORECASE)
"""Views and types, which revisions make by statements."""


class Owned:
    """
    Keeps tables of other owners, which no model describes, from being dropped.

    A table without a model is ours if a revision names it; one that no revision knows belongs to another program.

    Args:
        chain: The revisions.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.schemas = {table.schema for table in chain.database.metadata.tables.values()}

    @cached_property
    def named(self) -> set[str]:
        """
        Every word that stands in the revisions as a text of its own, the names of their tables among them.
        """
        trees = [
            ast.parse(Path(script.path).read_text(encoding="utf-8")) for script in self.chain.script().walk_revisions()
        ]
        constants = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
        texts = {value for value in constants if isinstance(value, str)}
        made = {name.replace('"', "").rpartition(".")[2] for text in texts for name in _MADE.findall(text)}
        return (texts | made) - NEVER - {self.chain.log.table.name}

    def include_object(self, thing: Any, name: str | None, kind: str, reflected: bool, model: Any) -> bool:  # noqa: FBT001  # Alembic calls it so
        """
        Say whether Alembic is to compare an object of the database or of the models.
        """
        is_alone = kind in ("table", "check_constraint") and reflected and model is None
        return not is_alone or name in self.named

    def include_name(self, name: str | None, kind: str, parents: Mapping[str, Any]) -> bool:
        """
        Say whether Alembic is to look at a schema.
        """
        return kind != "schema" or name in self.schemas
