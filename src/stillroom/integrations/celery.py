"""Celery: a unit of work for each task, committed before the task counts as done, and publishing after COMMIT."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, cast

from stillroom import MissingExtra, NotConfigured, UnitOfWork

try:
    from celery import Celery, Task, signals
except ImportError as error:  # pragma: no cover
    raise MissingExtra("Celery is not installed", extra="celery", name="celery") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery.canvas import Signature

    from stillroom import Databases, Retry

__all__ = ["UnitOfWorkTask", "apply_async_on_commit", "delay_on_commit", "install"]


class UnitOfWorkTask(Task):  # type: ignore[misc]  # Celery has no types
    """
    A task that runs in a unit of work: `self.uow`, and `dbs.current`.

    The unit ends before Celery stores the result, publishes what follows in a chain, or acknowledges the message
    late; a failed COMMIT is a failed task, which `autoretry_for` sees. Any exception rolls back, Celery's `Retry`,
    `Ignore` and `Reject` included. A task that is called as a function joins the unit of work of its caller.

    `install` makes it the base of all tasks of an application. For some tasks only, derive a base from it that sets
    `databases`.

    Attributes:
        databases: The databases.
        unit_of_work: Options of the unit of work, as for `Databases.unit_of_work`; None: the task has no unit. The
            `session.info["request"]` of its sessions is Celery's request.
        unit_retry: Tries again at once, in the same process, where nothing was committed; None for never.
    """

    abstract = True
    databases: Databases
    unit_of_work: Mapping[str, Any] | None = {}  # Celery's way to declare options of tasks
    unit_retry: Retry | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "run" in vars(cls):
            # Not `__call__`: that is outside of `autoretry_for`, which would never see a failed COMMIT, and has Celery
            # push an empty request.
            cls.run = _in_unit(vars(cls)["run"])

    @property
    def uow(self) -> UnitOfWork:
        """
        The current unit of work, which is the task's.

        Raises:
            NoUnitOfWork: The task has none.
        """
        return cast("UnitOfWork", self.databases.current)

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """
        Same as `delay`, but once the current unit of work is durable, and never if it is rolled back.
        """
        apply_async_on_commit(self, args, kwargs)

    def apply_async_on_commit(
        self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """
        Same as `apply_async`, but once the current unit of work is durable, and never if it is rolled back.
        """
        apply_async_on_commit(self, args, kwargs, **options)


def install(app: Celery, databases: Databases, *, retry: Retry | None = None) -> None:
    """
    Run each task of an application in a unit of work.

    Call it where the application is made, also in programs that only publish. A task declares what it needs:
    `@app.task(unit_of_work={"read_only": True})`, or `unit_of_work=None` to have no unit.

    Args:
        app: The application.
        databases: The databases; they may be configured later, and be in use before a worker forks.
        retry: The `unit_retry` of tasks that declare none.

    Raises:
        RuntimeError: It was installed already, or the application's tasks are made already.
    """
    if app.finalized or hasattr(app.Task, "databases"):
        raise RuntimeError(
            f"stillroom is installed on {app!r} already, or its tasks are in use: call install once, where it is made"
        )

    def close(**_: Any) -> None:
        databases.close()

    for signal in (signals.worker_process_shutdown, signals.worker_shutdown):
        signal.connect(close)
    # Signals refer to their receivers weakly: the connection lives as long as the application.
    attributes = {"abstract": True, "databases": databases, "unit_retry": retry, "close_databases": staticmethod(close)}
    app.Task = type("Task", (UnitOfWorkTask, app.Task), attributes)


def delay_on_commit(task: Task | Signature, *args: Any, **kwargs: Any) -> None:
    """
    Same as `task.delay`, but once the current unit of work is durable, and never if it is rolled back.

    Raises:
        NotConfigured: `install` was not called on the application of the task.
    """
    apply_async_on_commit(task, args, kwargs)


def apply_async_on_commit(
    task: Task | Signature, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
) -> None:
    """
    Same as `task.apply_async`, but once the current unit of work is durable, and never if it is rolled back.

    Where no unit of work is open it is published at once. A broker that cannot be reached by then raises `HookError`:
    the data is durable, and the task is not published.

    Args:
        task: A task, or a signature (a chain, a group, …).
        args: As for `apply_async`; copied, so that they are published as they are now.
        kwargs: As for `apply_async`; copied too.
        **options: As for `apply_async`.

    Raises:
        NotConfigured: `install` was not called on the application of the task.
    """
    databases: Databases | None = getattr(task, "databases", getattr(task.app.Task, "databases", None))
    if databases is None:
        raise NotConfigured(f"{task!r} belongs to an application that knows no databases: call install(app, dbs) first")
    published = task if isinstance(task, Task) else task.clone()
    publish: Callable[[], Any] = partial(published.apply_async, *deepcopy((args, dict(kwargs or {}))), **options)
    if not databases.has_current:
        publish()
        return
    unit = databases.current
    unit.on_commit(publish if isinstance(unit, UnitOfWork) else partial(asyncio.to_thread, publish))


def _in_unit(run: Any) -> Callable[..., Any]:
    """
    Make the body of a task, a function or a staticmethod, run in a unit of work.
    """

    @wraps(run)
    def in_unit(self: UnitOfWorkTask, *args: Any, **kwargs: Any) -> Any:
        body = run.__get__(self, type(self))
        if self.unit_of_work is None:
            return body(*args, **kwargs)
        options = dict(self.unit_of_work)
        options["info"] = {**options.get("info", {}), "request": self.request}

        @self.databases.transactional(propagation=_propagation(self), retry=self.unit_retry, **options)
        def in_unit(uow: UnitOfWork) -> Any:
            return body(*args, **kwargs)

        return in_unit()

    return in_unit


def _propagation(task: UnitOfWorkTask) -> Any:
    if task.request.called_directly:
        return "required"
    # Eagerly, a task runs inside of whoever asked for it, and must not see more than it would in a worker. Where the
    # unit is this very task's, its `run` is calling that of a base class.
    databases = task.databases
    ours = databases.has_current and databases.current.info.get("request") is task.request
    return "required" if ours else "new"
