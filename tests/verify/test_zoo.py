"""The zoo, as far as it is quick. All of it, with twenty strategies each: `distredge verify`."""

from __future__ import annotations

import pytest

from distredge.control.verify import verify
from distredge.errors import ModelError
from distredge.graph import zoo
from distredge.graph.importer import load_model

# name -> input shape (None: its own), lowest share of the work that is split
QUICK = {
    "tiny": (None, 1.0),
    "squeezenet": (None, 0.98),
    "shufflenet": (None, 0.98),
    "inception_v1": ((1, 3, 224, 224), 0.98),
    "resnet50": ((1, 3, 96, 64), 0.98),
    "pp-ocrv6-det": ((1, 3, 160, 96), 0.98),
}


@pytest.mark.parametrize("name", QUICK)
def test_zoo(name: str) -> None:
    shape, share = QUICK[name]
    entry = zoo.get(name)
    try:
        data = entry.build(shape).SerializeToString()
    except ModelError as error:
        pytest.skip(str(error))
    model = load_model(data, {entry.input: shape} if shape else None)
    outcome = verify(model, peers=4, strategies=4, seed=0)
    assert outcome.ok, outcome
    assert outcome.split_share >= share
    channels = [
        model.graph.tensors[node.outputs[0]].shape for node in model.graph.nodes if node.form == "combine"
    ]
    assert outcome.reduction_bytes <= sum(shape[1] for shape in channels) * 4 * 4
