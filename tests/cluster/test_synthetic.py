"""Segments, synthetic devices and the catalog."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest

from distredge.cluster import catalog
from distredge.cluster.catalog.devices import DEVICES
from distredge.cluster.catalog.grid import CLUSTERS, GRID
from distredge.cluster.hosts import Provider
from distredge.cluster.load import cluster_times, compute_times, load_cluster
from distredge.cluster.network import Network
from distredge.cluster.segment import node_rows, segment_rows
from distredge.cluster.synthetic import SyntheticDevice
from distredge.errors import HostsError

NANO = SyntheticDevice("test", flops=1e6, t0_s=0.001, granularity=4)


@pytest.mark.parametrize(
    ("segment", "rows"),
    [
        ([0], 10),
        ([0, 1, 2], 5),
        ([0, 1, 2, 3], 5),
        ([3], 5),
        ([3, 4], 5),
        ([4], 1),
        ([5], 1),
        ([4, 5], 1),
    ],
)
def test_segment_rows(graph, segment, rows):
    assert segment_rows(graph, segment) == rows


def test_node_rows(graph):
    assert [node_rows(graph, i) for i in range(6)] == [10, 10, 5, 5, 0, 0]


def test_staircase_of_one_layer(graph):
    """t0 + ceil(rows/g)·g·work_per_row/rate; 1,000 MACs over 10 rows are 200 FLOP a row."""
    times = NANO.on(graph)
    for rows in range(1, 11):
        assert times.seconds([0], rows) == pytest.approx(0.001 + ceil(rows / 4) * 4 * 200 / 1e6)
    assert times.seconds([0], 0) == 0


def test_layers_of_a_segment_add_up(graph):
    """3 of 5 rows of conv2 are 6 of 10 of conv1; relu and the reduction are free."""
    expected = 0.001 + 8 * 200 / 1e6 + 0.001 + 4 * 200 / 1e6
    assert NANO.on(graph).seconds([0, 1, 2, 3], 3) == pytest.approx(expected)


def test_whole_layers_cost_their_whole(graph):
    assert NANO.on(graph).seconds([5], 1) == pytest.approx(0.001 + 140 / 1e6)


def test_table_is_the_scalar_at_each_row(graph):
    for device in (NANO, *DEVICES.values()):
        times = device.on(graph)
        for segment in ([0], [0, 1, 2], [2, 3], [4, 5]):
            table = times.table(segment, 5)
            assert table.shape == (6,)
            assert table.dtype == np.float64
            assert table[0] == 0
            assert list(table) == [times.seconds(segment, rows) for rows in range(6)]
            assert np.all(np.diff(table) >= 0)


def test_rates_of_the_catalog():
    """Ratios of peak fp16 rates, anchored at the TX2's 0.49 TFLOP/s."""
    tera = {name.removeprefix("synthetic-"): d.flops / 1e12 for name, d in DEVICES.items()}
    assert tera == {
        "jetson-nano": pytest.approx(0.1732, abs=1e-4),
        "jetson-tx2": pytest.approx(0.49),
        "jetson-xavier": pytest.approx(4.0526, abs=1e-4),
        "raspberry-pi-4": pytest.approx(0.010),
    }
    assert all(name.startswith("synthetic-") and name == d.name for name, d in DEVICES.items())


def test_grid():
    assert len(GRID) == 16
    assert set(CLUSTERS) - set(GRID) == {"LA", "LB", "LC"}
    for name, cluster in CLUSTERS.items():
        assert cluster.name == name
        assert cluster.is_simulated
        assert len(set(cluster.names)) == (4 if name in GRID else 16)
        assert cluster.requester.uplink_mbps == 1000
        assert Network.of(cluster)
        assert all(p.profile in DEVICES for p in cluster.providers)
    assert catalog.cluster("DA-NA").names == ("0-xavier", "1-xavier", "2-nano", "3-nano")
    assert [p.uplink_mbps for p in catalog.cluster("DC-NB").providers] == [50, 50, 200, 200]
    assert len({p.profile for p in catalog.cluster("LA").providers}) == 4
    assert {p.uplink_mbps for p in catalog.cluster("LC").providers} == {100, 150, 200, 300}


def test_load_cluster(tmp_path):
    assert load_cluster("LB") is catalog.cluster("LB")
    file = tmp_path / "mine.ini"
    file.write_text("[provider:a]\nprofile = synthetic-jetson-nano\n")
    assert load_cluster(file).name == "mine"
    with pytest.raises(HostsError, match="DA-NX: no such cluster in the catalog; did you mean DA-N"):
        load_cluster("DA-NX")
    with pytest.raises(HostsError, match=r"none\.ini: cannot be read"):
        load_cluster(tmp_path / "none.ini")


def test_times_of_a_cluster(graph):
    times = cluster_times(catalog.cluster("DA-NA"), graph)
    assert [t.device for t in times] == ["synthetic-jetson-xavier"] * 2 + ["synthetic-jetson-nano"] * 2
    assert times[0] is times[1]


def test_unknown_or_missing_device(graph):
    with pytest.raises(
        HostsError, match=r"f\.ini:3: \[provider:a\] profile: jetson-nano: no such device in the"
    ):
        compute_times(Provider("a", profile="jetson-nano", line=3), graph, "f.ini")
    with pytest.raises(HostsError, match=r"\[provider:a\]: has no profile; run `distredge profile`"):
        compute_times(Provider("a", "host"), graph)
