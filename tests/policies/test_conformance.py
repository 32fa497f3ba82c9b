"""Every policy under the conformance test."""

from __future__ import annotations

from distredge.plan.policy import Policy
from policies.aofl import AOFL
from policies.auto import Auto
from policies.coedge import CoEdge
from policies.deeperthings import DeeperThings
from policies.deepthings import DeepThings
from policies.equal import Equal
from policies.lcpss import LCPSS
from policies.mednn import MeDNN
from policies.modnn import MoDNN
from policies.offload import Offload
from policies.proportional import Proportional
from policies.replicate import Replicate
from policies.search import Search
from tests.policies.conformance import PolicyConformance


class TestAOFL(PolicyConformance):
    def policy(self) -> Policy:
        return AOFL()


class TestAuto(PolicyConformance):
    def policy(self) -> Policy:
        return Auto(evaluations=3000)


class TestCoEdge(PolicyConformance):
    def policy(self) -> Policy:
        return CoEdge()


class TestDeeperThings(PolicyConformance):
    def policy(self) -> Policy:
        return DeeperThings()


class TestDeepThings(PolicyConformance):
    def policy(self) -> Policy:
        return DeepThings()


class TestEqual(PolicyConformance):
    def policy(self) -> Policy:
        return Equal()


class TestLCPSS(PolicyConformance):
    def policy(self) -> Policy:
        return LCPSS()


class TestMeDNN(PolicyConformance):
    def policy(self) -> Policy:
        return MeDNN()


class TestMoDNN(PolicyConformance):
    def policy(self) -> Policy:
        return MoDNN()


class TestOffload(PolicyConformance):
    def policy(self) -> Policy:
        return Offload()


class TestProportional(PolicyConformance):
    def policy(self) -> Policy:
        return Proportional()


class TestReplicate(PolicyConformance):
    def policy(self) -> Policy:
        return Replicate()


class TestSearch(PolicyConformance):
    def policy(self) -> Policy:
        return Search(evaluations=3000)
