"""What plans need of a peer's I/O thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from distredge.protocol.messages import Buffer, Message
from distredge.runtime.hosted import HostedPlan
from distredge.runtime.tenant import Tenant


class Mailroom(Protocol):
    """Sends, and does things in turn."""

    def send(self, tenant: Tenant, header: bytes, payload: Buffer | None) -> None:
        """To a session's requester."""
        ...

    def tell(self, tenant: Tenant, message: Message, payload: Buffer | None = None) -> None:
        """Encodes and sends."""
        ...

    def fail(self, tenant: Tenant, text: str, epoch: int = -1) -> None:
        """Tells a session's requester what went wrong, in one line."""
        ...

    def reject(self, reason: str) -> None:
        """Counts a message that nobody asked for."""
        ...

    def guarded(self, action: Callable[[], None]) -> None:
        """Does something whose errors must not end the peer."""
        ...

    def post(self, action: Callable[[], None]) -> None:
        """Lets the I/O thread do this, after what was posted before; for other threads."""
        ...

    @property
    def has_posted(self) -> bool:
        """Whether something posted is not done yet."""
        ...


def in_one_line(text: str) -> str:
    """What is told to a user: on one line, and no novel."""
    return " ".join(text.split())[:1000]


def fail_plan(mail: Mailroom, tenant: Tenant, hosted: HostedPlan, text: str) -> None:
    """A plan cannot be used (any more); its requester is told so once."""
    if not hosted.is_over:
        hosted.is_over = True
        mail.fail(tenant, text, hosted.epoch)
