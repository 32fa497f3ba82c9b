"""What crosses each place where the depth may be cut."""

from __future__ import annotations

from distredge.graph.model import Graph
from distredge.plan.strategy import PartitionScheme


def crossing(graph: Graph) -> dict[str, tuple[int, int]]:
    """For each of `Graph.cut_points`: how many tensors cross there, and their bytes.

    Graph inputs that are read behind the cut count too; what goes to the requester does not.
    """
    last_read = {name: max(readers) for name, readers in graph.consumers.items()}
    made_at = {name: graph.producer.get(name, -1) for name in last_read}
    count, size = [0] * (len(graph.nodes) + 1), [0] * (len(graph.nodes) + 1)
    for name, last in last_read.items():
        if graph.tensors[name].constant:
            continue
        start = max(0, made_at[name])
        for steps, amount in ((count, 1), (size, graph.tensors[name].total_bytes)):
            steps[start] += amount
            steps[max(start, last)] -= amount
    found, tensors, total = {}, 0, 0
    cuts = {graph.producer[cut]: cut for cut in graph.cut_points}
    for i in range(len(graph.nodes)):
        tensors, total = tensors + count[i], total + size[i]
        if i in cuts:
            found[cuts[i]] = (tensors, total)
    return found


def head_cuts(graph: Graph) -> tuple[str, ...]:
    """The cut in front of the head, and those in front of each further layer that is shared out by features:
    each needs the one before it whole, so that devices wait for each other there anyway."""
    if not graph.head_cut:
        return ()
    cuts = {graph.producer[cut]: cut for cut in graph.cut_points}
    layers = [i for i in sorted(graph.head) if graph.nodes[i].rule.kind == "features"]
    inner = (cuts[i - 1] for i in layers[1:] if i - 1 in cuts and i - 1 in graph.head)
    return (graph.head_cut, *inner)


def even_scheme(graph: Graph, volumes: int) -> PartitionScheme:
    """About so many volumes of about equal work, cut where the fewest bytes cross, and one for each layer of
    the head."""
    across = crossing(graph)
    total = sum(node.macs for node in graph.nodes) or 1
    done = 0
    head = head_cuts(graph)
    bins: dict[int, list[str]] = {}
    cut_at = {graph.producer[cut]: cut for cut in graph.cut_points}
    for i, node in enumerate(graph.nodes):
        done += node.macs
        if i in cut_at and i not in graph.head and cut_at[i] not in head:
            # Quantiles of work: the cut for each is looked for half a volume around it.
            nearest = round(done / total * volumes)
            if 0 < nearest < volumes:
                bins.setdefault(nearest, []).append(cut_at[i])
    trunk = (min(reversed(cuts), key=lambda cut: across[cut]) for cuts in bins.values())
    return PartitionScheme((*trunk, *head))
