"""Brings models and plans to the peers that need them, and takes plans away again."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

import msgpack

from distredge.errors import PeerTimeoutError, StrategyError
from distredge.plan.execution import ExecutionPlan
from distredge.plan.serde import to_plain
from distredge.protocol.messages import RetirePlan, UsePlan
from distredge.runtime.deployment import Deployment, Line
from distredge.runtime.membership import Membership
from distredge.runtime.supply import BlobSupply
from distredge.runtime.transport import MESSAGE_LIMIT, is_loopback

PREPARE_S = 300.0
"""A peer that builds sessions says nothing until it is done, and may be slow; but not as slow as that."""


class Rollout:
    """The plans of one session on its peers.

    Args:
        session: of all messages.
        peers: their connections.

    Attributes:
        deployments: plans that are not over, by epoch.
        progress: told what is waited for, how much of it is done, and how much there is.
    """

    def __init__(self, session: int, peers: Membership) -> None:
        self.deployments: dict[int, Deployment] = {}
        self.progress: Callable[[str, int, int], None] = lambda what, done, of: None
        self._session, self._peers = session, peers
        self._epochs = count()
        self._supply = BlobSupply(session, peers.links)
        self._announcing: list[Deployment] = []
        self._moved_s = 0.0

    def add(self, line: Line, plan: ExecutionPlan) -> Deployment:
        """Another plan of a line, under an epoch of its own, as are those beside it; `announce` brings each
        to the peers.

        Raises:
            StrategyError: the plan is not for these peers.
        """
        for way in plan.ways:
            self._check(way)
        local = all(is_loopback(member.address) for member in self._peers.members)
        ways = [Deployment(next(self._epochs), way, line, is_local=local) for way in plan.ways]
        for deployment in ways:
            deployment.ways = tuple(ways)
            self.deployments[deployment.epoch] = deployment
        return ways[0]

    def _check(self, plan: ExecutionPlan) -> None:
        peers = len(self._peers.members)
        if len(plan.devices) != peers:
            raise StrategyError(f"the plan is for {len(plan.devices)} devices, there are {peers} peers")
        for transfer in plan.transfers:
            size = plan.transfer_bytes(transfer)
            if size > MESSAGE_LIMIT:
                raise StrategyError(
                    f"rows of {transfer.tensor!r} would make a message of {size} bytes; "
                    f"the limit is {MESSAGE_LIMIT}; use more peers, or cut the depth elsewhere"
                )

    def announce(self, epoch: int) -> None:
        """Brings the model, where it is missing, and then the plan to the peers that it involves."""
        deployment = self.deployments[epoch]
        self._announcing.append(deployment)
        self._supply.offer(deployment.line.blobs, deployment.involved)
        self._announce_supplied()

    def retire(self, epoch: int) -> None:
        """Takes a plan away."""
        deployment = self.deployments.pop(epoch, None)
        if deployment is None:
            return
        if deployment in self._announcing:
            self._announcing.remove(deployment)
        else:
            self._peers.tell(deployment.involved, RetirePlan(self._session, epoch))

    def close(self) -> None:
        """Lets go of the models' content."""
        self._supply.close()

    # ------------------------------------------------------------------ what peers say

    def blob_needed(self, at: int, sha256: str, offset: int) -> None:
        """A peer asks for a blob from this byte on. Raises ProtocolError if there is no such byte."""
        self.moved()
        self._supply.needed(at, sha256, offset)

    def blob_ready(self, at: int, sha256: str) -> None:
        """A peer has a blob."""
        self.moved()
        self._supply.ready(at, sha256)
        self._announce_supplied()

    def forget(self, at: int) -> None:
        """A peer is lost, and what it had."""
        self._supply.forget(at)

    def _announce_supplied(self) -> None:
        """Sends the plans whose model is everywhere by now."""
        for deployment in list(self._announcing):
            if self._supply.missing(deployment.line.blobs, deployment.involved):
                continue
            self._announcing.remove(deployment)
            document = bytes(msgpack.packb(to_plain(deployment.plan)))
            addresses = tuple(member.address for member in self._peers.members)
            for device in sorted(deployment.involved):
                message = UsePlan(self._session, deployment.epoch, device, addresses, self._peers.keys)
                self._peers.links[device].send_message(message, document)
        if not self._announcing:
            self._supply.close()

    # ------------------------------------------------------------------ how far it is

    def moved(self) -> None:
        """Something got further."""
        self._moved_s = time.monotonic()

    def check_progress(self, deployment: Deployment) -> None:
        """Raises PeerTimeoutError if nothing has got any further for long."""
        if time.monotonic() - self._moved_s > PREPARE_S:
            lacking = self._supply.missing(deployment.line.blobs, deployment.involved)
            what = "did not take the model" if lacking else "did not get ready for the plan"
            member = self._peers.members[min(lacking or deployment.involved)]
            raise PeerTimeoutError(
                f"peer {member.name} at {member.address} {what} in {PREPARE_S:g} s", peer=member.name
            )

    def take_transits(self, at: int) -> bytes | None:
        """What a peer's transfers took of late, as the payload of a Ping; None if there is nothing."""
        told = [(epoch, deployment.take_transits(at)) for epoch, deployment in self.deployments.items()]
        reports = [[epoch, [], transits] for epoch, transits in told if transits]
        return bytes(msgpack.packb(reports)) if reports else None

    def tell_progress(self, deployment: Deployment) -> None:
        """Tells `progress` how far a plan is."""
        done, of = self._supply.under_way
        if of:
            self.progress("sending the model, MB", done // 1_000_000, of // 1_000_000)
        elif not self._supply.missing(deployment.line.blobs, deployment.involved):
            count = sum(len(way.involved) for way in deployment.ways)
            unready = sum(len(way.line.state.unready(way.epoch)) for way in deployment.ways)
            self.progress("peers ready", count - unready, count)
