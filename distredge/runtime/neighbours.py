"""Connections from one peer to others: made when a plan needs them, and watched for loss."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import zmq

from distredge import __version__
from distredge.errors import DistrEdgeError, KeysError
from distredge.protocol.messages import Failure, LostNeighbour, Welcome
from distredge.runtime.guard import Guard
from distredge.runtime.hosted import HostedPlan
from distredge.runtime.link import Link
from distredge.runtime.mailroom import Mailroom, fail_plan
from distredge.runtime.tenant import Tenant
from distredge.runtime.transport import is_loopback, is_readable, receive

NEIGHBOUR_S = 5.0
"""How long a peer waits for its neighbours to answer before it says that they do not."""


@dataclass
class _Connecting:
    """A plan that is built and waits for its neighbours' welcome."""

    tenant: Tenant
    hosted: HostedPlan
    links: list[Link] = field(default_factory=list)
    deadline_s: float = 0.0


class Neighbours:
    """Whom this peer sends rows to. In the I/O thread.

    Args:
        name: this peer's.
        context, poller: of the I/O thread.
        mail: the I/O thread.
        tenants: all sessions by their number.
        connected: told of each plan all of whose neighbours are there.
        guard: who knows the cluster's keys; None where connections are plain.
    """

    def __init__(
        self,
        name: str,
        context: zmq.Context[Any],
        poller: zmq.Poller,
        mail: Mailroom,
        tenants: dict[int, Tenant],
        connected: Callable[[Tenant, HostedPlan], None],
        guard: Guard | None = None,
    ) -> None:
        self._name, self._context, self._poller, self._mail = name, context, poller, mail
        self._tenants, self._connected, self._guard = tenants, connected, guard
        self._connecting: list[_Connecting] = []
        self._watched: set[Link] = set()

    def connect(self, tenant: Tenant, hosted: HostedPlan) -> None:
        """Greets everyone whom a plan sends to."""
        self.check_connections(tenant)
        waiting = _Connecting(tenant, hosted, deadline_s=time.monotonic() + NEIGHBOUR_S)
        try:
            for device in sorted(hosted.neighbours):
                waiting.links.append(self._connect(tenant, hosted, device))
        except (DistrEdgeError, zmq.ZMQError) as error:
            fail_plan(self._mail, tenant, hosted, f"cannot reach its neighbours: {error}")
            return
        self._connecting.append(waiting)
        self.check(time.monotonic())

    def _connect(self, tenant: Tenant, hosted: HostedPlan, device: int) -> Link:
        name, address, key = hosted.plan.devices[device], hosted.addresses[device], hosted.keys[device]
        if self._guard is None:
            if key:
                raise KeysError(f"{name} wants encryption, and this peer was started without keys")
        elif not (self._guard.allows(key) if key else is_loopback(address)):
            raise KeysError(f"{name} at {address} has no key of this cluster; run `fab deploy`")
        own = None if self._guard is None else self._guard.pair
        link = tenant.connect(self._context, name, address, self._name, own, key)
        if not link.welcomed and link not in self._watched:
            self._watched.add(link)
            self._poller.register(link.socket, zmq.POLLIN)
        return link

    @property
    def is_connecting(self) -> bool:
        """Whether a plan waits for its neighbours' welcome."""
        return bool(self._connecting)

    def check(self, now: float) -> None:
        """Hears what neighbours say, and tells which plans are connected by that."""
        for tenant in list(self._tenants.values()):
            for link in list(tenant.links.values()):
                while not link.socket.closed and is_readable(link.socket):
                    self._mail.guarded(partial(self._hear, tenant, link))
        for waiting in list(self._connecting):
            missing = [link for link in waiting.links if not link.welcomed]
            if waiting.hosted.is_over:
                self._connecting.remove(waiting)
            elif not missing:
                self._connecting.remove(waiting)
                self._connected(waiting.tenant, waiting.hosted)
            elif now > waiting.deadline_s:
                self._connecting.remove(waiting)
                self.lose(waiting.tenant, missing[0].address, "cannot reach")

    def _hear(self, tenant: Tenant, link: Link) -> None:
        _, message, _ = receive(link.socket, routed=False)
        if isinstance(message, Welcome) and not link.welcomed:
            if message.version != __version__:
                text = f"runs DistrEdge {__version__}, but {link.name} runs {message.version}"
                self._mail.fail(tenant, text)
                return
            link.welcomed = True
            self._unwatch(link)
        elif isinstance(message, Failure) and message.epoch in tenant.plans:
            hosted = tenant.plans[message.epoch]
            self._complain(tenant, hosted, link.address, f"sent rows to {link.name}, which {message.text}")

    def check_connections(self, tenant: Tenant) -> None:
        """Tells the requester of neighbours whose connections were lost."""
        for address, link in list(tenant.links.items()):
            if link.is_broken():
                self.lose(tenant, address, "lost its connection to")

    def lose(self, tenant: Tenant, address: str, what: str) -> None:
        """A neighbour is gone, and with it every plan that sends to it."""
        link = tenant.links[address]
        self._unwatch(link)
        text = f"{what} {link.name} at {address}" + (f", which {link.complaint}" if link.complaint else "")
        for hosted in tenant.cut(address):
            self._complain(tenant, hosted, address, text)

    def _complain(self, tenant: Tenant, hosted: HostedPlan, address: str, text: str) -> None:
        """Leaves the judgement to the requester."""
        device = hosted.addresses.index(address)
        self._mail.tell(tenant, LostNeighbour(tenant.session, hosted.epoch, device, text))

    def _unwatch(self, link: Link) -> None:
        if link in self._watched:
            self._watched.remove(link)
            self._poller.unregister(link.socket)

    def cut_unused(self, tenant: Tenant) -> None:
        """Closes the connections that no plan needs any more, with whatever waits in their queues."""
        for link in tenant.unused_links():
            self._unwatch(link)
            tenant.cut(link.address)

    def forget(self, tenant: Tenant) -> None:
        """A session is over; whoever says so closes its connections."""
        for link in tenant.links.values():
            self._unwatch(link)
        self._connecting = [waiting for waiting in self._connecting if waiting.tenant is not tenant]
