"""
Runs the Python snippets of the README and of every page, in order, each page in a directory of its own.

A page's snippets share their names, and may use `await` at the top. A snippet before which an HTML comment names
a file, `<!-- file: stillroom.toml -->`, is written there instead of being run. One that is shown from a file of the
project, `<!-- from: examples/shop_flask/test_shop.py -->`, has to stand there.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

CAPTION = re.compile(r"<!--\s*(file|from):\s*(\S+)\s*-->")


class Snippet(NamedTuple):
    """
    A fenced block: its language, its text, the line of the page where the text begins, and the file it is or is from.
    """

    language: str
    text: str
    line: int
    file: str | None
    source: str | None


def snippets(page: str) -> Iterator[Snippet]:
    """
    Yield the fenced blocks of a page's text in order, those inside lists included.
    """
    caption: dict[str, str] = {}
    for token in MarkdownIt("commonmark").parse(page):
        if token.type == "html_block":
            found = CAPTION.search(token.content)
            caption = {found[1]: found[2]} if found else {}
        elif token.type == "fence":
            begin = (token.map or [0])[0] + 1
            yield Snippet(token.info.strip(), token.content, begin, caption.get("file"), caption.get("from"))
            caption = {}


def run_page(text: str, name: str, directory: Path) -> int:
    """
    Run the snippets of a page in a directory.

    Returns:
        How many Python snippets ran, were written to files or were found in theirs.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    seen = 0
    with asyncio.Runner() as runner:
        for snippet in snippets(text):
            seen += snippet.language == "python"
            if snippet.source is not None:
                assert snippet.text in (ROOT / snippet.source).read_text(encoding="utf-8"), f"{name}:{snippet.line}"
            elif snippet.file is not None:
                target = directory / snippet.file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(snippet.text, encoding="utf-8")
            elif snippet.language == "python":
                source = "\n" * snippet.line + snippet.text
                code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
                if code.co_flags & inspect.CO_COROUTINE:
                    runner.run(eval(code, names))
                else:
                    exec(code, names)
    return seen


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_snippets_of_a_page_work(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:asyncio -p no:randomly")  # which are here for tests of the plugin
    monkeypatch.syspath_prepend(tmp_path)
    text = path.read_text(encoding="utf-8")
    known = set(sys.modules)
    try:
        assert run_page(text, str(path), tmp_path) == text.count("```python\n")
    finally:
        own = {each.stem for each in tmp_path.iterdir() if each.suffix == ".py" or each.is_dir()}
        for name in set(sys.modules) - known:  # another page has a module of the same name
            if name.partition(".")[0] in own:
                del sys.modules[name]


def test_the_readme_shows_a_program_that_works_as_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = next(each for each in snippets(PAGES[0].read_text(encoding="utf-8")) if each.language == "python")
    assert first.text.count("\n") < 15
    exec(compile(first.text, "README.md", "exec", dont_inherit=True), {"__name__": "__main__"})


PAGE = """
<!-- file: sub/data.toml -->
```toml
answer = 42
```
```python
import asyncio, pathlib, tomllib
answer = tomllib.loads(pathlib.Path("sub/data.toml").read_text())["answer"]
```
```python
await asyncio.sleep(0)
assert answer == {expected}
```
"""


def test_snippets_share_names_and_files_and_may_await(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page(PAGE.format(expected=42), "page.md", tmp_path) == 2


@pytest.mark.parametrize(("line", "stands_there"), [("ROOT = Path(__file__).parents[1]", True), ("ROOT = 1", False)])
def test_a_snippet_from_a_file_stands_there(line: str, stands_there: bool, tmp_path: Path) -> None:
    page = f"<!-- from: tests/test_docs.py -->\n```python\n{line}\n```\n"
    with contextlib.nullcontext() if stands_there else pytest.raises(AssertionError, match=r"page\.md:2"):
        assert run_page(page, "page.md", tmp_path) == 1


def test_an_error_in_a_snippet_names_the_line_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError) as caught:
        run_page(PAGE.format(expected=43), "page.md", tmp_path)
    assert caught.traceback[-1].lineno + 1 == PAGE.splitlines().index("assert answer == {expected}") + 1
