"""What depends on numbers drawn at random is computed in one place: two devices would draw two answers."""

from __future__ import annotations

import random
from pathlib import Path

from distredge.graph.importer import load_model
from distredge.plan.compile import compile_plan
from distredge.plan.draw import random_strategy
from tests.graph.nets import Net, X


def test_drawn_numbers_and_all_behind_them_stay_on_one_device(tmp_path: Path) -> None:
    net = Net()
    calm = net.conv("x", 3, 4, relu=False)
    noisy = net.op("Add", calm, net.op("RandomNormalLike", calm))
    data = net.model(X, [net.conv(noisy, 4, 4, relu=False)])
    model = load_model(data, cache_dir=tmp_path)
    graph = model.graph
    drawn = {node.name for node in graph.nodes if node.op_type == "RandomNormalLike"}
    assert 0 < graph.split_share < 1  # the first Conv is split
    assert [graph.nodes[i].op_type for i in sorted(graph.tail)] == ["RandomNormalLike", "Add", "Conv"]
    rng = random.Random(0)
    for _ in range(20):
        plan = compile_plan(graph, random_strategy(graph, 3, 2, rng), ["a", "b", "c"])
        parts = [plan.parts[task.part] for task in plan.tasks]
        assert sum(node.source in drawn for part in parts for node in part.nodes) == 1
