"""Makes one revision of many, without harm to databases that are in the midst of them."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.util import to_tuple

from .chain import SQUASHED, Chain, explained, replaced_by
from .errors import RevisionRefused
from .writing import Written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alembic.script import Script

    from stillroom import Databases

__all__ = ["squash"]

_OF_ALEMBIC = {"revision", "down_revision", "branch_labels", "depends_on", "replaces"}

_FILE = '''"""
{message}

Does what {count} revisions did, from {first} to {revision}. Their files are in {directory!r}, for databases that are
in their midst; remove that directory once no database is.

Revision ID: {revision}
Revises:
"""

revision = {revision!r}
down_revision = None
branch_labels = None
depends_on = None
replaces = {replaces!r}


{steps}


STEPS = ({names},)


def upgrade() -> None:
    for step in STEPS:
        step()[0]()


def downgrade() -> None:
    for step in reversed(STEPS):
        step()[1]()
'''


def squash(databases: Databases, database: str, message: str = "squashed", *, revision: str = "head") -> Written:
    """
    Put the revisions up to one into a single file, which keeps the last one's id.

    A database that has that revision, or a later one, notices nothing; a new one runs the single file. The old files
    move to `versions/squashed/<id>`: with them a database that stands between them goes on to the last, as before.

    One that was killed left all as it was, or is finished by the next, which then does nothing else.

    Args:
        databases: The application's.
        database: The database.
        message: Of the new revision.
        revision: The last of those that become one.

    Raises:
        RevisionRefused: They cannot be one; says why, and nothing was changed.
    """
    chain = Chain(databases[database])
    if (finished := _finished(chain)) is not None:
        return finished
    if revision == "head":
        chain.head()
    directory = chain.script()
    with explained(chain.name):
        found = [*directory.iterate_revisions(revision, "base")][::-1]
    _require_one_piece(chain, found)
    name = found[-1].revision
    steps = [_step(number, script) for number, script in enumerate(found, 1)]
    text = _FILE.format(
        message=message,
        count=len(found),
        first=found[0].revision,
        revision=name,
        directory=f"{SQUASHED}/{name}",
        replaces=tuple(script.revision for script in found[:-1]),
        steps="\n\n\n".join(steps),
        names=", ".join(f"_step_{number}" for number, _ in enumerate(found, 1)),
    )
    slug = re.sub(r"\W+", "_", message.lower()).strip("_")[:40]
    path = chain.versions / f"{name}_{slug}.py"
    compile(text, str(path), "exec")
    _put(chain, found, text)
    Path(found[-1].path).rename(path)
    return Written(chain.name, name, str(path), tuple(script.revision for script in found))


def _put(chain: Chain, found: Sequence[Script], text: str) -> None:
    """
    Put a file in the place of others; wherever that is ended, the revisions can be read, or it can be finished.

    One renaming decides: that of the new file over the one of the last revision, which has the same id. Before it the
    old ones are all there, as is their copy, which nobody needs yet; behind it those that are left over are known.
    """
    stage, archive = chain.versions / "squashing", chain.versions / SQUASHED / found[-1].revision
    shutil.rmtree(stage, ignore_errors=True)
    copies, new = stage / "old", stage / "new"
    copies.mkdir(parents=True)
    for script in found:
        shutil.copy2(script.path, copies)
    new.write_text(text, encoding="utf-8")
    archive.parent.mkdir(exist_ok=True)
    if archive.is_dir():  # of one that was ended before it was decided
        archive.rename(stage / "before")
    copies.rename(archive)
    new.replace(found[-1].path)
    _remove_replaced(chain, found[:-1], archive)
    shutil.rmtree(stage)


def _remove_replaced(chain: Chain, scripts: Sequence[Script], archive: Path) -> None:
    """
    Remove the files of revisions that were squashed, the newest first: what is left can be read at any time.
    """
    for script in reversed(scripts):
        path = Path(script.path)
        copy = archive / path.name
        if not copy.is_file() or copy.read_bytes() != path.read_bytes():
            raise RevisionRefused(
                f"{script.path!r} was squashed, but is not the file that stands in {str(archive)!r}; what it has of "
                f"its own belongs into a new revision of {chain.name!r}. Move it away, then try again"
            )
        path.unlink()


def _finished(chain: Chain) -> Written | None:
    """
    Finish a squash that was ended behind the point of its decision.
    """
    directory, left = chain.read()
    if not left:
        return None
    squashed = next(script for script in directory.walk_revisions() if left[0].revision in replaced_by(script))
    _remove_replaced(chain, left, chain.versions / SQUASHED / squashed.revision)
    shutil.rmtree(chain.versions / "squashing", ignore_errors=True)
    return Written(chain.name, squashed.revision, squashed.path, (*replaced_by(squashed), squashed.revision))


def _require_one_piece(chain: Chain, found: Sequence[Script]) -> None:
    why = ""
    if not found:
        raise RevisionRefused(f"the database {chain.name!r} has no revisions to be squashed")
    inner = {script.revision for script in found[:-1]}
    outside = [
        script for script in chain.script().walk_revisions() if script.revision not in {*inner, found[-1].revision}
    ]
    if len(found) < 2:
        why = "there are not two of them"
    for script in outside:
        if inner & {*to_tuple(script.down_revision, ()), *to_tuple(script.dependencies, ())}:
            why = f"{script.revision} stands on one that is not the last of them"
    for script in found:
        if script.dependencies or script.branch_labels:
            why = f"{script.revision} has labels or dependencies, which would be lost"
        if Path(script.path).parent != chain.versions.absolute():
            why = f"{script.path!r} is not in {str(chain.versions)!r}"
    if why:
        raise RevisionRefused(f"the revisions of {chain.name!r} cannot become one: {why}")


def _step(number: int, script: Script) -> str:
    """
    Return a function that has the text of a revision's file in its body, so that its names stay its own.
    """
    source = Path(script.path).read_text(encoding="utf-8")
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Global) or (isinstance(node, ast.ImportFrom) and node.names[0].name == "*"):
            raise RevisionRefused(
                f"{script.path!r} cannot be squashed: its line {node.lineno} works in a file of its own only"
            )
    gone = {line for node in tree.body if _is_head(node) for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    in_texts = set(_lines_in_texts(tree))
    lines = []
    for line, text in enumerate(source.splitlines(), 1):
        if line not in gone:
            lines.append(text if line in in_texts or not text.strip() else f"    {text}")
    body = "\n".join(lines).strip("\n")
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for end in ("upgrade", "downgrade"):
        if hasattr(script.module, end) and end not in functions:
            raise RevisionRefused(
                f"{script.path!r} cannot be squashed: its {end!r} is not a function of that name at the top of the "
                f"file, and would be lost; write `def {end}() -> None:` there"
            )
    ends = ", ".join(each if each in functions else "lambda: None" for each in ("upgrade", "downgrade"))
    doc = " ".join((script.doc or "").split()).replace("\\", "").replace('"', "'")
    body = re.sub(r"\n{3,}", "\n\n", body) if not in_texts else body
    return f'def _step_{number}():\n    """{script.revision}: {doc}."""\n{body}\n    return {ends}'


def _is_head(node: ast.stmt) -> bool:
    """
    Say whether a statement of a file is Alembic's or has its effect at the top of a file alone.
    """
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.ImportFrom):
        return node.module == "__future__"
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(isinstance(each, ast.Name) and each.id in _OF_ALEMBIC for each in targets)


def _lines_in_texts(tree: ast.AST) -> Iterator[int]:
    """
    Yield the lines that begin inside a text, where more white space would be part of it.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)):
            yield from range(node.lineno + 1, (node.end_lineno or 0) + 1)
