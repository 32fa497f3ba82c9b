"""A new plan for changed links, soon: from the plan in use, and from plans made ahead for slower links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distredge.cluster.network import Network
from distredge.plan.compile import check_strategy
from distredge.plan.policy import PlanningProblem, get_policy
from distredge.plan.strategy import Strategy

BUDGET_S = 0.05
"""So long may a new plan take, from the question to the answer."""
SEARCH_SHARE = 0.8
"""Of that, for the search itself; the rest is for laying out the problem."""
SLOWER = 3.0
"""How many times slower a link is in the plans made ahead."""


def replan(
    problem: PlanningProblem, in_use: Strategy, budget_s: float = BUDGET_S, *, spare: Sequence[Strategy] = ()
) -> Strategy:
    """The best strategy found in time; never one that the simulator takes for slower than the one in use.

    It is quick because tables that depend on the model and the devices alone are kept: the problem must
    hold the very graph and devices (`dataclasses.replace(old, network=...)`) that were planned for before.
    Otherwise the answer is as good, but the tables' making comes on top of the time: some 0.1 s.

    Args:
        problem: with the links as they are now.
        in_use: a strategy for the same model and number of devices.
        budget_s: for everything.
        spare: further strategies to start from, such as `plans_ahead` made.

    Raises:
        PolicyError: the model does not fit into memory, or the planner is not installed.
        StrategyError: a strategy is one of another model or number of devices.
    """
    for strategy in (in_use, *spare):
        check_strategy(problem.graph, strategy, len(problem.devices))
    search = get_policy("search", starts=(in_use, *spare))
    return search.find_strategy(replace(problem, budget_s=SEARCH_SHARE * budget_s))


def plans_ahead(problem: PlanningProblem, in_use: Strategy, budget_s: float = 2.0) -> tuple[Strategy, ...]:
    """For each device a plan for its link at a third of its rate, to be made while nothing is urgent.

    They need not foresee the change exactly: what matters is which devices take part, and where the depth
    is cut; the rows are soon adapted.

    Args:
        problem: with the links as they are now.
        in_use: the plan for it.
        budget_s: for all of them.

    Raises:
        PolicyError: as for `replan`.
    """
    each_s = budget_s / len(problem.devices)
    slower = (with_slower_link(problem, device, SLOWER) for device in range(len(problem.devices)))
    return tuple(replan(changed, in_use, each_s) for changed in slower)


def with_slower_link(problem: PlanningProblem, device: int, times: float) -> PlanningProblem:
    """The same problem with one device's link so many times slower, both ways."""
    network = problem.network
    links = list(network.links)
    link = links[device]
    links[device] = replace(
        link, uplink_mbps=link.uplink_mbps / times, downlink_mbps=link.downlink_mbps / times
    )
    return replace(problem, network=Network(tuple(links), network.requester, network.access_point_mbps))
