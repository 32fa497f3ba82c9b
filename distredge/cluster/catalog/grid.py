"""The grid of simulated clusters on which policies are compared.

DA to DD are four devices each, NA to ND the rates of their links to the access point; `DA-NA` is one of each.
LA, LB and LC are clusters of sixteen. The requester's link has 1,000 Mbit/s everywhere.
"""

from __future__ import annotations

from distredge.cluster.hosts import Cluster, Provider, Requester

_XAVIER, _TX2, _NANO, _PI = "jetson-xavier", "jetson-tx2", "jetson-nano", "raspberry-pi-4"

DEVICE_MIXES = {
    "DA": (_XAVIER, _XAVIER, _NANO, _NANO),
    "DB": (_XAVIER, _TX2, _TX2, _NANO),
    "DC": (_TX2, _TX2, _NANO, _NANO),
    "DD": (_NANO, _NANO, _NANO, _NANO),
}
BANDWIDTHS_MBPS = {
    "NA": (200.0, 200.0, 200.0, 200.0),
    "NB": (50.0, 50.0, 200.0, 200.0),
    "NC": (50.0, 100.0, 200.0, 300.0),
    "ND": (50.0, 50.0, 50.0, 50.0),
}
REQUESTER_MBPS = 1000.0


def _cluster(name: str, types: tuple[str, ...], rates_mbps: tuple[float, ...]) -> Cluster:
    providers = tuple(
        Provider(
            # position first: the same type comes several times
            name=f"{i}-{kind.removeprefix('jetson-').removeprefix('raspberry-')}",
            profile=f"synthetic-{kind}",
            uplink_mbps=rate,
            downlink_mbps=rate,
        )
        for i, (kind, rate) in enumerate(zip(types, rates_mbps, strict=True))
    )
    requester = Requester(uplink_mbps=REQUESTER_MBPS, downlink_mbps=REQUESTER_MBPS)
    return Cluster(name, requester, providers)


def _large() -> dict[str, Cluster]:
    each_type = tuple(kind for kind in (_XAVIER, _TX2, _NANO, _PI) for _ in range(4))
    nanos_then_tx2s = tuple(kind for kind in (_NANO, _TX2) for _ in range(8))
    return {
        "LA": _cluster("LA", each_type, (50.0, 100.0, 200.0, 300.0) * 4),
        "LB": _cluster("LB", (_PI,) * 16, (100.0,) * 16),
        "LC": _cluster("LC", nanos_then_tx2s, (100.0, 150.0, 200.0, 300.0) * 4),
    }


GRID = {
    f"{mix}-{network}": _cluster(f"{mix}-{network}", types, rates)
    for mix, types in DEVICE_MIXES.items()
    for network, rates in BANDWIDTHS_MBPS.items()
}
CLUSTERS = GRID | _large()
