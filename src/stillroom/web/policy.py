"""When the unit of work of a web request is committed: one rule for all frameworks."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003  # whoever reads the annotations of a struct needs the name
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..status import CommitMode  # noqa: TC001  # as above

if TYPE_CHECKING:
    from ..aio import AsyncUnitOfWork
    from ..unit_of_work import UnitOfWork

    Unit = TypeVar("Unit", UnitOfWork, AsyncUnitOfWork)


class CommitPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """
    When the unit of work of a request is committed, once the answer is known and before it is sent.

    An exception that leaves the view is always a rollback, whatever the answer that is made of it.

    Args:
        commit: "auto" decides by the answer; "manual" leaves it to `uow.commit()` in the view.
        below: Answers with this status or a greater one are rolled back.
        veto: Called with the request and the response (what these are depends on the framework) of each answer that
            would be committed; True rolls it back.

    Raises:
        ValueError: A value is not one of those.
    """

    commit: CommitMode = "auto"
    below: int = 400
    veto: Callable[[Any, Any], bool] | None = None

    def __post_init__(self) -> None:
        if self.commit not in ("auto", "manual"):
            raise ValueError(f"commit={self.commit!r}: it is 'auto' or 'manual'")
        if not 100 <= self.below <= 600:
            raise ValueError(f"below={self.below!r}: it is a status of HTTP, from 100 to 600")
        if self.veto is not None and not callable(self.veto):
            raise ValueError(f"veto={self.veto!r}: it is a function of the request and the response")

    def refusal(self, status: int, request: Any = None, response: Any = None) -> str | None:
        """
        Say why an answer must not be committed; None where it is.

        Args:
            status: The status of HTTP.
            request: For the veto.
            response: For the veto.
        """
        if status >= self.below:
            return f"the answer has the status {status}"
        if self.veto is not None and self.veto(request, response):
            return f"{getattr(self.veto, '__qualname__', self.veto)} vetoed the answer"
        return None

    def new_unit(self, make: Callable[..., Unit], request: Any) -> Unit:
        """
        Make the unit of work of a request, not entered yet.

        Args:
            make: `dbs.unit_of_work` or `dbs.async_unit_of_work`.
            request: What `session.info["request"]` of its sessions is.
        """
        unit = make() if self.commit == "auto" else make(commit=self.commit)
        unit.info["request"] = request
        return unit

    def settle(self, unit: Any, status: int, request: Any = None, response: Any = None) -> None:
        """
        Doom a unit of work that is still open if its answer must not be committed; its end follows.
        """
        if status < self.below and self.veto is None:
            return
        refusal = self.refusal(status, request, response)
        if refusal is not None and unit.is_active:
            unit.doom(refusal)
