"""Pyramid: a unit of work for each request, ended by a tween, or by the transaction of pyramid_tm."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from stillroom import CommitPolicy, Databases, MissingExtra, Settings, is_retryable
from stillroom.web import ENVIRON_KEY, open_unit, shares_unit, unit_of

try:
    from pyramid.exceptions import ConfigurationError
    from pyramid.request import Request
    from pyramid.settings import asbool
    from pyramid.tweens import EXCVIEW, INGRESS, MAIN
except ImportError as error:  # pragma: no cover
    raise MissingExtra("Pyramid is not installed", extra="pyramid", name="pyramid") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from pyramid.config import Configurator
    from pyramid.registry import Registry
    from pyramid.response import Response

    from stillroom import UnitOfWork

    Handler: TypeAlias = Callable[[Request], Response]

__all__ = ["databases_of", "includeme", "install", "pshell"]

_INSTALLED = "stillroom"
_OWN_KEYS = "stillroom.pyramid."
_TM = "pyramid_tm.tm_tween_factory"
_IMPLICIT = (
    "the transaction manager of this request is {!r}, which is not explicit: a subrequest, or an application inside "
    "this one, that begins a transaction would abort this one's, and the answer would be 200 although nothing is kept. "
    "Set tm.manager_hook = pyramid_tm.explicit_manager, and let code that uses `transaction` use `request.tm`"
)


def includeme(config: Configurator) -> None:
    """
    Do `config.include("stillroom.integrations.pyramid")`: databases and policy come from the `.ini` file.

    Beside the keys of the databases (`stillroom.databases.main.url`, …) it reads `stillroom.pyramid.commit` ("auto",
    "manual"), `stillroom.pyramid.below`, `stillroom.pyramid.veto` (a dotted name), `stillroom.pyramid.name` (of the
    request's attribute, "uow") and `stillroom.pyramid.per_database` (false: no `request.main`, only `request.uow`).

    Raises:
        SettingsError: Something in them is wrong; the message names the full key.
        ConfigurationError: The same, for the keys that begin with `stillroom.pyramid`.
    """
    settings = config.get_settings()
    others = {key: value for key, value in settings.items() if not key.startswith(_OWN_KEYS)}
    own = {key: value for key, value in settings.items() if key.startswith(_OWN_KEYS)}
    options = _options(config, {key.removeprefix(_OWN_KEYS): value for key, value in own.items()})
    install(config, Databases(Settings.from_ini(others)), **options)


def _options(config: Configurator, own: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(own.keys() - {"commit", "below", "veto", "name", "per_database"})
    if unknown:
        known = "commit, below, veto, name, per_database"
        raise ConfigurationError(f"{_OWN_KEYS}{unknown[0]}: there is no such key; known are {known}")
    try:
        policy = CommitPolicy(
            commit=own.get("commit", "auto"),
            below=int(own.get("below", 400)),
            veto=config.maybe_dotted(own.get("veto") or None),
        )
    except ValueError as error:
        raise ConfigurationError(f"{_OWN_KEYS[:-1]}: {error}") from error
    return {
        "policy": policy,
        "name": own.get("name", "uow"),
        "per_database": asbool(own.get("per_database", True)),
    }


def install(
    config: Configurator,
    databases: Databases,
    *,
    policy: CommitPolicy | None = None,
    name: str = "uow",
    per_database: bool = True,
) -> None:
    """
    Give each request a unit of work, `request.uow`, and a session for each database, `request.main`.

    Without pyramid_tm a tween ends it: below exceptions and statuses of 400 it commits, before the response leaves, and
    an error of COMMIT goes to the exception views. With pyramid_tm it is a part of `request.tm`, which decides alone;
    a request whose manager is not explicit is refused with `ConfigurationError`.

    Args:
        config: The configurator.
        databases: The databases, configured.
        policy: When to commit; its veto gets Pyramid's request and response. With pyramid_tm only its `commit` counts.
        name: The attribute of the request.
        per_database: Give the request an attribute for each database too.

    Raises:
        ConfigurationError: It was installed already, or a name is one of Pyramid's own.
    """
    if _INSTALLED in config.registry:
        raise ConfigurationError("stillroom is installed on this application already")
    requests = config.registry[_INSTALLED] = _Requests(databases, policy or CommitPolicy())
    getters: dict[str, Callable[[Request], Any]] = {name: requests.unit}
    if per_database:
        getters |= {each: _session_getter(requests, each) for each in databases}
    _add_attributes(config, getters)
    tweens = "stillroom.integrations.pyramid."
    config.add_tween(f"{tweens}tween_factory", under=(_TM, INGRESS), over=EXCVIEW)
    config.add_tween(f"{tweens}tagging_tween_factory", under=EXCVIEW, over=MAIN)


def _add_attributes(config: Configurator, getters: dict[str, Callable[[Request], Any]]) -> None:
    for name in getters:
        if hasattr(Request, name):
            raise ConfigurationError(
                f"request.{name} is Pyramid's own, so it cannot be the unit of work or a database. Choose another "
                "name, or leave the databases to request.uow: per_database=False (stillroom.pyramid.per_database)"
            )
        config.add_request_method(None, name)  # nobody else may have it
    config.add_request_method(_Attributes(getters), "stillroom_attributes")


class _Attributes:
    """
    Gives each request of an application attributes, by a class that is made once.

    `add_request_method(property=True)` makes a class for each request, which costs as much as the unit of work itself.
    A method is bound to each request that there is, subrequests and those of scripts included, and binding this one
    changes the class of the request.

    Args:
        getters: By name; called with the request.
    """

    def __init__(self, getters: dict[str, Callable[[Request], Any]]) -> None:
        attributes = {name: _Attribute(getter) for name, getter in getters.items()}

        @lru_cache(maxsize=16)  # an application may make a class for each request by itself
        def with_attributes(base: type) -> type:
            return type(base.__name__, (base,), attributes)

        self._class: Callable[[Any], type] = with_attributes

    def __get__(self, request: Any, owner: type | None = None) -> _Attributes:
        if request is not None:
            request.__class__ = self._class(type(request))
        return self


class _Attribute:
    """
    An attribute that is asked for each time; it may be set on a request, as tests do.
    """

    def __init__(self, getter: Callable[[Request], Any]) -> None:
        self._getter = getter

    def __get__(self, request: Any, owner: type | None = None) -> Any:
        return self if request is None else self._getter(request)


def _session_getter(requests: _Requests, name: str) -> Callable[[Request], Any]:
    return lambda request: requests.unit(request).session(name)


def databases_of(registry: Registry) -> Databases:
    """
    Return the databases of an application, for scripts: `databases_of(env["registry"])`.

    Raises:
        LookupError: Stillroom is not installed on it.
    """
    if _INSTALLED not in registry:
        raise LookupError(
            "stillroom is not installed on this application: config.include('stillroom.integrations.pyramid')"
        )
    return cast("_Requests", registry[_INSTALLED]).databases


def pshell(env: dict[str, Any]) -> Iterator[None]:
    """
    Be the `setup` of `[pshell]`: `dbs`, and `uow`, which is committed by `uow.commit()` and not otherwise.
    """
    env["dbs"] = databases = databases_of(env["registry"])
    with databases.unit_of_work(commit="manual", info={"request": env["request"]}) as env["uow"]:
        yield


def tween_factory(handler: Handler, registry: Registry) -> Handler:
    """
    Make the tween that ends units of work.
    """
    requests = cast("_Requests", registry[_INSTALLED])

    def tween(request: Request) -> Response:
        return requests.answer(request, handler)

    return tween


def tagging_tween_factory(handler: Handler, registry: Registry) -> Handler:
    """
    Make the tween that tags what a view raises, before an exception view turns it into an answer.
    """

    def tween(request: Request) -> Response:
        try:
            return handler(request)
        except Exception as error:
            _tag(error)
            raise

    return tween


def _tag(error: Exception) -> None:
    """
    Tell pyramid_retry that the request may be tried again.
    """
    if is_retryable(error):
        try:
            from pyramid_retry import mark_error_retryable
        except ImportError:
            return
        mark_error_retryable(error)


def _doom_if_failed(request: Request, unit: UnitOfWork) -> None:
    error = getattr(request, "exception", None)
    if error is not None and unit.is_active:  # an exception view has made the response
        unit.doom(f"the view raised {type(error).__name__}")


class _Requests:
    """
    What happens to the requests of one application.
    """

    def __init__(self, databases: Databases, policy: CommitPolicy) -> None:
        self.databases = databases
        self.policy = policy

    def unit(self, request: Request) -> UnitOfWork:
        """
        Return the unit of work of a request.

        That of a transaction is found before the tween has begun and after it has ended as well. What has no request
        of its own, a script or a subrequest, shares the current unit; a script may use `request.tm` instead.
        """
        environ = request.environ
        if shares_unit(environ, self.databases):
            return unit_of(environ)
        if environ.get("tm.active"):
            return self._joined(request)
        if ENVIRON_KEY in environ:
            return unit_of(environ)
        if hasattr(request, "tm") and not self.databases.has_current:
            return self._joined(request)
        return cast("UnitOfWork", self.databases.current)

    def answer(self, request: Request, handler: Handler) -> Response:
        """
        Be the tween.
        """
        environ = request.environ
        if shares_unit(environ, self.databases):
            shared = handler(request)
            _doom_if_failed(request, unit_of(environ))
            return shared
        if environ.get("tm.active"):
            self._joined(request)
            try:
                return handler(request)
            finally:
                environ.setdefault(ENVIRON_KEY, None)  # after the transaction the request has no unit of work
        response: Response | None = None
        try:
            with open_unit(environ, self.databases, self.policy, request) as unit:
                response = handler(request)
                _doom_if_failed(request, unit)
                self.policy.settle(unit, response.status_int, request, response)
        except Exception as error:
            if response is None:
                raise
            # what a view may raise, COMMIT may raise
            _tag(error)
            return request.invoke_exception_view(sys.exc_info(), reraise=True)
        return response

    def _joined(self, request: Request) -> UnitOfWork:
        """
        Return the unit of work of the transaction; there is one, whoever asks for it in whichever request.

        Raises:
            ConfigurationError: The manager would abort the transaction when somebody begins another one.
        """
        manager = request.environ.get("tm.manager") or request.tm
        if not manager.explicit:
            raise ConfigurationError(_IMPLICIT.format(manager))
        transaction = manager.get()
        try:
            joined: UnitOfWork | None = transaction.data(self.databases)
        except KeyError:
            joined = None
        if joined is not None:
            return joined
        unit = self.policy.new_unit(self.databases.unit_of_work, request)
        transaction.join(_DataManager(unit, manager))
        transaction.set_data(self.databases, unit)
        return unit.__enter__()


class _DataManager:
    """
    Lets a transaction of the package `transaction` end a unit of work.

    It is asked last, and commits when it is asked for its vote: what can fail must fail before the others finish.
    The interface: https://transaction.readthedocs.io/en/latest/datamanager.html
    """

    def __init__(self, unit: UnitOfWork, manager: Any) -> None:
        self.unit = unit
        self.transaction_manager = manager
        self.ended = False
        self.savepoints: list[_Savepoint] = []

    def sortKey(self) -> str:  # noqa: N802  # the interface says so
        return f"~~stillroom:{id(self)}"

    def tpc_begin(self, transaction: Any) -> None:
        pass

    def commit(self, transaction: Any) -> None:
        pass

    def tpc_vote(self, transaction: Any) -> None:
        try:
            self._end()
        except Exception as error:
            _tag(error)
            raise

    def tpc_finish(self, transaction: Any) -> None:
        pass

    def tpc_abort(self, transaction: Any) -> None:
        self.abort(transaction)

    def abort(self, transaction: Any) -> None:
        transaction.set_data(self.unit.databases, None)  # it may go on without, after the rollback to a savepoint
        if self.unit.is_active:
            self.unit.doom("the transaction was aborted")
        self._end()

    def _end(self) -> None:
        if not self.ended:  # a transaction may abort what has failed to vote
            self.ended = True
            self.unit.__exit__(None, None, None)

    def savepoint(self) -> _Savepoint:
        savepoint = _Savepoint(self)
        self.savepoints.append(savepoint)
        return savepoint

    def should_retry(self, error: BaseException) -> bool:
        return is_retryable(error)


class _RolledBack(Exception):  # it is a way to leave a block, no error
    """
    Leaves the block of a savepoint so that it is rolled back.
    """


class _Savepoint:
    """
    A savepoint of a transaction. It can be rolled back to more than once.
    """

    def __init__(self, manager: _DataManager) -> None:
        self.manager = manager
        self.block = manager.unit.savepoint()
        self.block.__enter__()

    def rollback(self) -> None:
        savepoints = self.manager.savepoints
        while True:  # those that were made later go with it
            last = savepoints.pop()
            last.block.__exit__(_RolledBack, _RolledBack(), None)
            if last is self:
                break
        self.block = self.manager.unit.savepoint()
        self.block.__enter__()
        savepoints.append(self)
