"""The plans of one peer, from their announcement to their end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import zmq

from distredge.errors import ProtocolError
from distredge.protocol.epochs import Verdict
from distredge.protocol.messages import PLAN_LIMIT, Buffer, PlanReady, UsePlan
from distredge.runtime.blobs import BlobStore
from distredge.runtime.builder import PlanBuilder
from distredge.runtime.compute import DutyCycle
from distredge.runtime.guard import Guard
from distredge.runtime.hosted import HostedPlan
from distredge.runtime.mailroom import Mailroom
from distredge.runtime.neighbours import Neighbours
from distredge.runtime.running import FrameRunner
from distredge.runtime.tenant import Tenant
from distredge.runtime.transport import tcp_address

KEPT_SHARE = 0.5
"""Of the machine's memory: rows kept for frames under way, at most; half of that for one session."""
PLANS_LIMIT = 64


class PlanHost:
    """Announced, built, connected to its neighbours, ready, over: that is the way of a plan.

    Args:
        name: the peer's.
        context, poller: of the I/O thread.
        mail: the I/O thread.
        tenants: all sessions by their number.
        blobs: used in the preparing thread only.
        threads, execution_providers: of the inference engine.
        duty: the rest that the compute unit takes after each part.
        guard: who knows the cluster's keys; None where connections are plain.

    Attributes:
        builder: builds them.
        neighbours: whom they send to.
        runner: runs their frames.
    """

    def __init__(
        self,
        name: str,
        context: zmq.Context[Any],
        poller: zmq.Poller,
        mail: Mailroom,
        tenants: dict[int, Tenant],
        blobs: BlobStore,
        *,
        threads: int,
        execution_providers: Sequence[str],
        duty: DutyCycle,
        guard: Guard | None = None,
    ) -> None:
        self._mail, self._tenants, self._duty = mail, tenants, duty
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit = int(memory * KEPT_SHARE)
        self.neighbours = Neighbours(name, context, poller, mail, tenants, self._ready, guard)
        self.runner = FrameRunner(name, mail, tenants, self.neighbours.lose, limit)
        self.builder = PlanBuilder(
            mail, blobs, self._built, limit // 2, threads=threads, execution_providers=execution_providers
        )

    def close(self) -> None:
        """Ends the threads."""
        self.runner.close()
        self.builder.close()

    def use(self, tenant: Tenant, message: UsePlan, payload: Buffer | None) -> None:
        """Starts to prepare a plan.

        Raises:
            ProtocolError: it cannot be a plan, or is one too many.
        """
        if tenant.epochs.judge(message.epoch) is not Verdict.UNKNOWN:
            raise ProtocolError("an epoch was announced twice")
        if payload is None or len(payload) > PLAN_LIMIT:
            raise ProtocolError("a plan's size is not acceptable")
        if len(tenant.plans) >= PLANS_LIMIT:
            raise ProtocolError("too many plans")
        # They come from the network, and ZeroMQ has more kinds of addresses than a peer may use.
        addresses = [tcp_address(address) for address in message.addresses]
        if len(message.keys) != len(addresses):
            raise ProtocolError("a plan names not as many keys as addresses")
        hosted = HostedPlan(
            message.session, message.epoch, message.device, addresses, message.keys, tenant.trace, self._duty
        )
        self.builder.build(tenant, hosted, payload)
        tenant.epochs.announce(message.epoch, hosted)

    def _built(self, tenant: Tenant, hosted: HostedPlan) -> None:
        if not hosted.is_over:
            self.neighbours.connect(tenant, hosted)

    def _ready(self, tenant: Tenant, hosted: HostedPlan) -> None:
        hosted.is_ready = True
        self._mail.tell(tenant, PlanReady(hosted.session, hosted.epoch, hosted.device))
        self.runner.take_early(hosted)

    def retire(self, tenant: Tenant, epoch: int) -> None:
        """Forgets a plan.

        Raises:
            ProtocolError: there is none.
        """
        self.runner.let_go(tenant.epochs.retire(epoch))
        self.neighbours.cut_unused(tenant)
        self.builder.free(self._all)

    def forget(self, tenant: Tenant) -> None:
        """Forgets all plans of a session, and its connections."""
        self.neighbours.forget(tenant)
        for hosted in tenant.plans.values():
            self.runner.let_go(hosted)
        tenant.close()
        self.builder.free(self._all)

    def _all(self) -> Iterable[HostedPlan]:
        """Of all sessions; for any thread."""
        for tenant in list(self._tenants.values()):
            yield from list(tenant.plans.values())
