"""The file that lists the known repeats of old code."""

from __future__ import annotations

import contextlib
from typing import IO, TYPE_CHECKING

from ..errors import TestingError

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows, where several processes must not update one file at once
    fcntl = None  # type: ignore[assignment]  # the module is absent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import TypeAlias

    Blocks: TypeAlias = dict[str, dict[str, str]]

__all__ = ["read", "write"]

_HEAD = "# Statements that are known to be sent again and again (N+1). This file may only shrink.\n"


def read(path: Path) -> Blocks:
    """
    Return the known repeats: for each block by name, their keys and remarks. No file: none.

    Raises:
        TestingError: A line is not valid.
    """
    try:
        return _parsed(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        return {}


def write(path: Path, block: str, repeats: Mapping[str, str]) -> None:
    """
    Replace the repeats of one block; those of others, which another process may be writing, stay.

    Args:
        path: The file, made if it is not there.
        block: The name of the block.
        repeats: Keys and remarks; none takes the block out.
    """
    with _locked(path) as file:
        before = file.read()
        blocks = _parsed(before, path)
        blocks.pop(block, None)
        if repeats:
            blocks[block] = dict(repeats)
        after = _HEAD + "".join(
            f"\n[{name}]\n" + "".join(f"{key}  # {remark}\n" for key, remark in sorted(blocks[name].items()))
            for name in sorted(blocks)
        )
        if after != before:
            file.seek(0)
            file.truncate()
            file.write(after)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file


def _parsed(text: str, path: Path) -> Blocks:
    blocks: Blocks = {}
    block: dict[str, str] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        if content.startswith("[") and content.endswith("]"):
            block = blocks.setdefault(content[1:-1], {})
        elif block is None:
            raise TestingError(f"{str(path)!r}, line {number}: {line!r} stands before the first [name of a block]")
        else:
            key, _, remark = content.partition("  # ")
            block[key.strip()] = remark
    return blocks
