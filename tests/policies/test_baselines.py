"""What sets each baseline apart."""

from __future__ import annotations

import numpy as np
import pytest

from distredge.sim.rates import only_device
from policies.aofl import AOFL
from policies.coedge import CoEdge
from policies.cuts import layer_cuts
from policies.deepthings import DeepThings, even_split
from policies.lcpss import LCPSS
from policies.mednn import MeDNN
from policies.modnn import MoDNN
from policies.offload import Offload
from policies.parts import pricer_for
from policies.replicate import Replicate
from tests.policies.problems import chain, problem


def shares_of(strategy: object) -> list[float]:
    split = strategy.splits[0]  # type: ignore[attr-defined]
    return [split.part(d).size / split.rows for d in range(split.parts)]


def test_offload_weighs_speed_against_the_link() -> None:
    fast_but_far = problem(chain(rows=64), gflops=(100.0, 1.0), mbps=(0.1, 1000.0))
    assert not Offload().find_strategy(fast_but_far).splits[0].part(0)
    fast_and_near = problem(chain(rows=64), gflops=(100.0, 1.0), mbps=(1000.0, 1000.0))
    assert Offload().find_strategy(fast_and_near).splits[0].part(0)


def test_modnn_splits_every_layer_by_speed() -> None:
    asked = problem(chain(rows=80), gflops=(0.3, 0.1))
    strategy = MoDNN().find_strategy(asked)
    assert strategy.scheme.cuts == layer_cuts(asked.graph)
    assert shares_of(strategy) == pytest.approx([0.75, 0.25], abs=0.03)


def test_mednn_is_no_worse_than_either_reading() -> None:
    asked = problem(chain(rows=80, layers=6), gflops=(0.3, 0.1, 0.05), mbps=(50.0, 100.0, 20.0))
    pricer = pricer_for(asked)
    assert pricer.latency_s(MeDNN().find_strategy(asked)) <= pricer.latency_s(MoDNN().find_strategy(asked))


def test_coedge_gives_a_slow_link_less_and_drops_what_is_thin() -> None:
    graph = chain(rows=64)
    near = CoEdge().find_strategy(problem(graph, gflops=(0.1, 0.1), mbps=(100.0, 100.0)))
    far = CoEdge().find_strategy(problem(graph, gflops=(0.1, 0.1), mbps=(100.0, 10.0)))
    assert near.splits[0].part(1).size == 32
    assert far.splits[0].part(1).size < 30
    dropped = CoEdge().find_strategy(problem(graph, gflops=(0.1, 0.1, 0.001)))
    assert all(not split.part(2) for split in dropped.splits)


def test_deepthings_fuses_early_layers_and_gathers_the_rest() -> None:
    asked = problem(chain(rows=64, layers=8), gflops=(0.1, 0.3, 0.1))
    strategy = DeepThings().find_strategy(asked)
    first, second = strategy.splits
    assert asked.graph.tensors[strategy.scheme.cuts[0]].rows == 8
    assert first == even_split(8, 3)
    assert sorted(second.part(d).size for d in range(3))[:2] == [0, 0]
    deeper = DeepThings(depth=2).find_strategy(asked)
    assert deeper.scheme.cuts == (layer_cuts(asked.graph)[1],)


def test_even_split_gives_the_last_the_remainder() -> None:
    assert even_split(10, 4).bounds == (0, 3, 6, 9, 10)
    assert even_split(3, 5).bounds == (0, 1, 2, 3, 3, 3)


def test_aofl_takes_the_better_variant() -> None:
    asked = problem(chain(rows=64, layers=8), gflops=(0.3, 0.1, 0.02), mbps=(50.0, 100.0, 20.0))
    pricer = pricer_for(asked)
    latencies = [pricer.latency_s(AOFL(variant=v).find_strategy(asked)) for v in ("even", "linear", "best")]
    assert latencies[2] == min(latencies[:2])


def test_lcpss_weighs_traffic_against_work() -> None:
    asked = problem(chain(rows=64, layers=8), gflops=(0.1,) * 4)
    cuts = [len(LCPSS(alpha=alpha).find_cuts(asked)) for alpha in (0.0, 1.0)]
    assert cuts[0] == len(layer_cuts(asked.graph))  # work alone: no redundant rows
    assert cuts[1] < cuts[0]
    assert LCPSS().find_cuts(asked) == LCPSS().find_cuts(asked)


def test_replicate_names_who_can_hold_the_model() -> None:
    graph = chain(rows=64)
    need = float(pricer_for(problem(graph)).memory_bytes(Offload().find_strategy(problem(graph))).max())
    asked = problem(graph, memory_bytes=(2 * need, need / 2, 2 * need))
    ways = Replicate().find_strategy(asked).ways
    assert [only_device(way) for way in ways] == [0, 2]


def test_a_link_that_is_never_used_changes_nothing() -> None:
    """Baselines that plan by compute alone do not look at links."""
    graph = chain(rows=64)
    for policy in (MoDNN(), LCPSS()):
        strategies = {policy.find_strategy(problem(graph, mbps=mbps)) for mbps in ((9.0,) * 3, (90.0,) * 3)}
        assert len(strategies) == 1
    assert np.isfinite(pricer_for(problem(graph)).speeds()).all()
