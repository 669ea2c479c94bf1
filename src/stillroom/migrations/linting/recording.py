"""Runs the upgrade of a revision without a database, and writes down what it would do."""

from __future__ import annotations

import inspect
import io
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.operations import Operations
from alembic.operations.ops import ExecuteSQLOp
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import IdentifierError

from stillroom.secrets import mask_text

from ..environment import Task
from .operations import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from alembic.config import Config
    from alembic.operations.ops import MigrateOperation
    from alembic.runtime.migration import MigrationContext
    from alembic.script import Script

    from ..chain import Chain
    from .actions import Action

__all__ = ["Recording", "line_in", "record"]


@dataclass
class Recording:
    """
    What a revision does.

    Attributes:
        script: The revision.
        actions: What it does, in order; all before the error, if there is one.
        error: Why the rest is not known; empty where all is known.
        line: Where the error was raised.
    """

    script: Script
    actions: list[Action] = field(default_factory=list)
    error: str = ""
    line: int = 1


def record(chain: Chain, scripts: Sequence[Script]) -> list[Recording]:
    """
    Record revisions; their code runs, as with `upgrade-sql`, and connects to nothing.
    """
    recordings: list[Recording] = chain.command(_record, Task(chain), chain, scripts)
    return recordings


def line_in(path: str, frame: FrameType | None) -> int:
    """
    Return the line of the innermost frame that is in a file; 0 where none is.
    """
    while frame is not None:
        if frame.f_code.co_filename == path:
            return frame.f_lineno
        frame = frame.f_back
    return 0


def _record(config: Config, chain: Chain, scripts: Sequence[Script]) -> list[Recording]:
    return [_Recorder(script).run(config, chain) for script in scripts]


class _Recorder:
    """
    Stands between a revision and Alembic's operations.
    """

    def __init__(self, script: Script) -> None:
        self.recording = Recording(script)
        self.path = str(Path(script.module.__file__ or script.path))
        self.autocommit = False
        self.output = io.StringIO()
        self.read = 0
        self.count = 0

    def run(self, config: Config, chain: Chain) -> Recording:
        """
        Run the upgrade, and return what was recorded.
        """
        directory = ScriptDirectory.from_config(config)
        with EnvironmentContext(config, directory, as_sql=True) as environment:
            environment.configure(
                dialect_name=chain.database.settings.url.get_backend_name(),
                output_buffer=self.output,
                literal_binds=True,
                transaction_per_migration=True,
            )
            context = environment.get_context()
            vars(context)["autocommit_block"] = partial(self._autocommit_block, context.autocommit_block)
            with Operations.context(context) as operations:
                self._listen(operations)
                vars(operations)["batch_alter_table"] = partial(self._batch, operations.batch_alter_table)
                bind = _Bind(operations.get_bind(), partial(self._executed, context))
                vars(operations)["get_bind"] = lambda: bind
                self._upgrade()
                self._note(context, None, self._written())
        return self.recording

    def _upgrade(self) -> None:
        recording = self.recording
        try:
            recording.script.module.upgrade()
        except Exception as error:  # noqa: BLE001  # a revision's own code may raise anything
            recording.error = mask_text(" ".join(f"{type(error).__name__}: {error}".split()))
            trace = error.__traceback__
            while trace is not None:
                if trace.tb_frame.f_code.co_filename == self.path:
                    recording.line = trace.tb_lineno
                trace = trace.tb_next

    def _listen(self, operations: Any) -> None:
        # Every operation, also those that other packages add, goes through this method of its instance.
        vars(operations)["invoke"] = partial(self._invoke, operations.migration_context, operations.invoke)

    def _invoke(
        self, context: MigrationContext, invoke: Callable[[MigrateOperation], Any], operation: MigrateOperation
    ) -> Any:
        self._note(context, None, self._written())  # what was sent past the operations, such as by Table.create()
        line, result = line_in(self.path, inspect.currentframe()), None
        try:
            result = invoke(operation)
        except IdentifierError:
            pass  # a name is too long, which a rule tells; what follows is still looked at
        finally:
            self._note(context, operation, self._written(), line)
        return result

    def _executed(self, context: MigrationContext, sql: Any) -> None:
        self._note(context, ExecuteSQLOp(sql), "", line_in(self.path, inspect.currentframe()))

    def _written(self) -> str:
        """
        Return the SQL since the last time.
        """
        text = self.output.getvalue()[self.read :]
        self.read += len(text)
        return text

    def _note(self, context: MigrationContext, operation: MigrateOperation | None, sql: str, line: int = 0) -> None:
        flags = {"autocommit"} if self.autocommit else set()
        self.count += 1
        self.recording.actions += [
            replace(each, line=line, flags=each.flags | flags, statement=f"{self.count} {each.statement}")
            for each in read(operation, context.dialect, sql)
            if operation is not None or each.kind != "other"
        ]

    @contextmanager
    def _autocommit_block(self, block: Callable[[], Any]) -> Iterator[None]:
        self.autocommit = True
        try:
            with block():
                yield
        finally:
            self.autocommit = False

    @contextmanager
    def _batch(self, batch: Callable[..., Any], *arguments: Any, **keywords: Any) -> Iterator[Any]:
        backend = ""
        try:
            with batch(*arguments, **keywords) as operations:
                self._listen(operations)
                yield operations
                backend = operations.migration_context.dialect.name
        except Exception as error:
            # Here all is recorded. SQLite's way to alter a table would read it first; a long name is told by a rule.
            if backend != "sqlite" and not (backend and isinstance(error, IdentifierError)):
                raise
        finally:
            self._written()  # only now the operations were written, all at once


class _Bind:
    """
    Stands for the connection that `op.get_bind()` gives: takes statements, and has no answers.
    """

    def __init__(self, bind: Any, executed: Callable[[Any], None]) -> None:
        self._bind = bind
        self._executed = executed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bind, name)

    def execute(self, sql: Any, *_: Any, **__: Any) -> Any:
        """
        Take a statement.
        """
        self._executed(sql)
        return _Answer()

    def exec_driver_sql(self, sql: str, *_: Any) -> Any:
        """
        Take a statement as the driver does.
        """
        return self.execute(sql)

    scalar = scalars = execute


class _Answer:
    """
    Is not there: whoever looks at it asks a database.
    """

    def _missing(self, *_: object) -> Any:
        raise LookupError("the revision needs an answer of the database, and there is none without it")

    __getattr__ = __getitem__ = __iter__ = __bool__ = __eq__ = __hash__ = __lt__ = __gt__ = __int__ = _missing
