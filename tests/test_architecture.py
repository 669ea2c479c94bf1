"""
What keeps the code in shape: which way imports go, what `import stillroom` loads, how long things may get.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "stillroom"

# A module imports from its own layer and from those before it. A new module gets its place here.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "secrets", "status", "watchdog"}),
    frozenset({"classification", "importing", "settings", "models"}),
    frozenset({"backends", "connections", "engines", "forking", "pool"}),
    frozenset({"context", "declared", "hooks", "retry", "sessions"}),
    frozenset({"core", "ending", "two_phase", "unit_of_work", "verification"}),
    # `Databases.unit_of_work()` makes units of work, so the databases stand above the unit; it knows them by type only.
    frozenset({"database", "databases", "overriding", "propagation", "replicas", "scoped", "web"}),
    frozenset({"repository", "recording"}),
)

# Beside the layers: the asynchronous facade may use all of them.
BESIDE = "aio"

# At the border: what uses public names only, so that it could live in a package of its own.
BORDER = frozenset({"integrations", "cli", "data", "panel", "migrations", "testing", "demo"})

# The modules whose names without an underscore are public, beside `stillroom` itself and the border's own.
PUBLIC = frozenset({"errors", "classification", "secrets", "settings", "models", "repository", "recording", "web"})

# The modules that hand out asynchronous objects; they load the facade when it is first asked for.
LOADS_AIO_LATE = frozenset({"", "database", "databases", "propagation", "web"})

# What a program that only imports Stillroom must not pay for.
NOT_LOADED = {
    *("aiohttp", "celery", "fastapi", "flask", "jinja2", "pyramid", "starlette"),
    *("alembic", "anyio", "click", "pytest", "rich", "uvloop"),
    *("aiomysql", "aiosqlite", "asyncmy", "asyncpg", "psycopg", "pymysql"),
}

# Since version 2.1 SQLAlchemy itself loads greenlet only for asyncio.
if sqlalchemy.__version__ >= "2.1":
    NOT_LOADED.add("greenlet")

LONGEST_FILE = 600  # lines; more need a reason, on a line of the docstring that says "lines because"
LONGEST_FUNCTION = 60  # lines without the docstring
MOST_PARAMETERS = 8  # without self and cls
MOST_SUPPRESSIONS = 3  # per 1,000 lines

SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|pragma:|mypy:|ruff:|pyright:|fmt:)(.*)")
CODED_SUPPRESSION = re.compile(
    r"#\s*((ruff: )?noqa: [A-Z]+\d+|type: ignore\[[a-z-]+(, ?[a-z-]+)*\]|pragma: no (cover|branch)|fmt: skip)"
)


@dataclass(frozen=True)
class Import:
    """
    One name that one module imports.
    """

    importer: str
    module: str
    name: str | None
    line: int
    late: bool

    def __str__(self) -> str:
        what = self.module if self.name is None else f"{self.module}.{self.name}"
        return f"{self.importer}:{self.line} imports {what}"


@cache
def modules() -> dict[str, Path]:
    """
    Return all modules of the package by their dotted name.
    """
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"), filename=str(modules()[name]))


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def walk(node: ast.AST, *, late: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """
    Walk over what runs, each node with whether it runs only when a function is called.
    """
    for child in ast.iter_child_nodes(node):
        if only_for_types(child):
            continue
        yield child, late
        yield from walk(child, late=late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def absolute(importer: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = importer.split(".")
    is_package = modules()[importer].name == "__init__.py"
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


@cache
def imports() -> tuple[Import, ...]:
    """
    Return every import of the package that happens when the code runs.
    """
    found = []
    for importer in modules():
        for node, late in walk(tree(importer)):
            if isinstance(node, ast.Import):
                found += [Import(importer, alias.name, None, node.lineno, late) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = absolute(importer, node)
                for alias in node.names:
                    submodule = f"{module}.{alias.name}"
                    known = submodule in modules()
                    target, name = (submodule, None) if known else (module, alias.name)
                    found.append(Import(importer, target, name, node.lineno, late))
    return tuple(found)


def top(module: str) -> str:
    """
    Return the first name below `stillroom`, empty for the package itself.
    """
    return module.split(".")[1] if "." in module else ""


def layer(module: str) -> int | None:
    return next((number for number, names in enumerate(LAYERS) if top(module) in names), None)


def inside() -> Iterator[Import]:
    return (each for each in imports() if each.module.split(".")[0] == "stillroom")


def test_every_module_has_its_place() -> None:
    placed = {*(name for names in LAYERS for name in names), BESIDE, *BORDER, "", "__main__"}
    missing = {top(name) for name in modules()} - placed
    assert not missing, f"put these into LAYERS or BORDER: {sorted(missing)}"


def test_imports_go_one_way() -> None:
    wrong = []
    for each in inside():
        importer, imported = layer(each.importer), layer(each.module)
        if importer is not None and imported is not None and imported > importer and not each.late:
            wrong.append(str(each))
    assert not wrong


def test_only_the_border_imports_the_border() -> None:
    outside = BORDER | {"__main__"}
    wrong = [str(each) for each in inside() if top(each.module) in BORDER and top(each.importer) not in outside]
    assert not wrong


def test_no_layer_imports_the_package_itself() -> None:
    wrong = [str(each) for each in inside() if each.module == "stillroom" and layer(each.importer) is not None]
    assert not wrong


def test_no_layer_imports_the_asynchronous_facade_early() -> None:
    allowed = LOADS_AIO_LATE
    wrong = [
        str(each)
        for each in inside()
        if top(each.module) == BESIDE
        and top(each.importer) != BESIDE
        and not (each.late and top(each.importer) in allowed)
        and each.importer != "stillroom"
    ]
    assert not wrong


def test_the_border_uses_public_names_only() -> None:
    wrong = []
    for each in inside():
        own = top(each.importer)
        if own not in BORDER or top(each.module) == own:
            continue
        private = any(part.startswith("_") for part in [*each.module.split("."), each.name or ""])
        if private or not (each.module == "stillroom" or top(each.module) in PUBLIC | BORDER):
            wrong.append(str(each))
    assert not wrong


def test_integrations_never_import_each_other() -> None:
    prefix = "stillroom.integrations."
    wrong = [
        str(each)
        for each in inside()
        if each.importer.startswith(prefix)
        and each.module.startswith(prefix)
        and each.importer.split(".")[2] != each.module.split(".")[2]
    ]
    assert not wrong


def test_no_private_name_of_sqlalchemy_is_imported() -> None:
    wrong = [
        str(each)
        for each in imports()
        if each.module.split(".")[0] == "sqlalchemy"
        and any(part.startswith("_") for part in [*each.module.split("."), each.name or ""])
    ]
    assert not wrong


def loaded_by(statement: str) -> set[str]:
    program = f"import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
    path = f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r}); "
    done = subprocess.run(
        [sys.executable, "-c", path + program], check=True, capture_output=True, timeout=60, text=True
    )
    return {name.split(".")[0] for name in json.loads(done.stdout)}


def test_importing_stillroom_loads_neither_frameworks_nor_drivers() -> None:
    assert not loaded_by("import stillroom") & NOT_LOADED


def test_loading_every_public_name_loads_neither_frameworks_nor_drivers() -> None:
    synchronous = "import stillroom; [getattr(stillroom, n) for n in stillroom.__all__ if 'sync' not in n.lower()]"
    assert not loaded_by(synchronous) & NOT_LOADED


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_says_what_it_is(name: str) -> None:
    docstring = ast.get_docstring(tree(name))
    assert docstring, f"{name} has no docstring"
    assert docstring.split("\n\n")[0].rstrip().endswith((".", ":")), f"the first sentence of {name} does not end"


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_is_short_or_says_why_not(name: str) -> None:
    lines = modules()[name].read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_FILE or "lines because" in (ast.get_docstring(tree(name)) or ""), f"{lines} lines"


def functions(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


@pytest.mark.parametrize("name", sorted(modules()))
def test_functions_are_short_and_take_few_parameters(name: str) -> None:
    wrong = []
    for function in functions(name):
        arguments = function.args
        names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        parameters = len([each for each in names if each not in {"self", "cls"}])
        overloaded = any("overload" in ast.unparse(each) for each in function.decorator_list)
        if parameters > MOST_PARAMETERS and not overloaded:
            wrong.append(f"{function.name} (line {function.lineno}): {parameters} parameters")
        if length(function) > LONGEST_FUNCTION:
            wrong.append(f"{function.name} (line {function.lineno}): {length(function)} lines")
    assert not wrong


def test_suppressions_are_few() -> None:
    texts = [path.read_text(encoding="utf-8") for path in modules().values()]
    lines = sum(text.count("\n") for text in texts)
    found = sum(len(SUPPRESSION.findall(text)) for text in texts)
    assert found * 1000 < MOST_SUPPRESSIONS * max(lines, 1000), f"{found} in {lines} lines"


@pytest.mark.parametrize("name", sorted(modules()))
def test_each_suppression_names_its_code(name: str) -> None:
    text = modules()[name].read_text(encoding="utf-8")
    wrong = [line for line in text.splitlines() if SUPPRESSION.search(line) and not CODED_SUPPRESSION.search(line)]
    assert not wrong
