"""What every policy must do. Inherit `PolicyConformance` and say how the policy is made."""

from __future__ import annotations

import pytest

from distredge.errors import PolicyError
from distredge.graph.model import Graph
from distredge.plan.compile import compile_plan
from distredge.plan.policy import PlanningProblem, Policy
from distredge.plan.strategy import Strategy
from distredge.plan.validation import validate_plan
from policies.parts import memory_limits, pricer_for
from tests.policies.problems import all_tail, branches, chain, problem, with_head


class PolicyConformance:
    """Inherited by one test class per policy."""

    def policy(self) -> Policy:
        raise NotImplementedError

    def decide(self, asked: PlanningProblem) -> Strategy:
        """The strategy, proven to be valid and within memory."""
        strategy = self.policy().find_strategy(asked)
        plan = compile_plan(asked.graph, strategy, [device.name for device in asked.devices])
        validate_plan(plan)
        assert (pricer_for(asked).memory_bytes(strategy) <= memory_limits(asked)).all()
        return strategy

    @pytest.mark.parametrize("make", [chain, branches, all_tail, with_head])
    def test_valid_and_the_same_twice(self, make: object) -> None:
        graph: Graph = make()  # type: ignore[operator]
        first, second = (self.decide(problem(graph, seed=3)) for _ in range(2))
        assert first == second

    @pytest.mark.parametrize("make", [chain, branches, all_tail, with_head])
    def test_one_device(self, make: object) -> None:
        strategy = self.decide(problem(make(), gflops=(1.0,)))  # type: ignore[operator]
        assert strategy.devices == 1

    def test_equal_devices(self) -> None:
        self.decide(problem(chain(), gflops=(1.0,) * 4))

    def test_more_devices_than_rows(self) -> None:
        self.decide(problem(chain(rows=4), gflops=(1.0, 2.0, 3.0, 1.0, 1.0, 2.0)))

    @pytest.mark.parametrize("make", [chain, branches, all_tail, with_head])
    def test_device_without_memory_gets_nothing(self, make: object) -> None:
        asked = problem(make(), gflops=(4.0, 2.0, 1.0), memory_bytes=(0.0, 1e9, 1e9))  # type: ignore[operator]
        plan = compile_plan(asked.graph, self.decide(asked), [device.name for device in asked.devices])
        assert all(task.device != 0 for task in plan.tasks)

    def test_device_with_little_memory_gets_less(self) -> None:
        graph = chain(rows=64)
        need = float(pricer_for(problem(graph)).memory_bytes(self.decide(problem(graph))).max())
        self.decide(problem(graph, memory_bytes=(0.6 * need, 1e9, 1e9)))

    def test_no_memory_at_all(self) -> None:
        with pytest.raises(PolicyError, match="memory"):
            self.policy().find_strategy(problem(chain(), memory_bytes=(0.0, 10.0, 10.0)))
