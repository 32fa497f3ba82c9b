"""A lower bound: no strategy, of any scheme and any split, answers a frame sooner.

It is the optimum of a linear program in which rows may be shared out at will. Each device computes some
rows of each node and receives some rows of each tensor. Whatever a strategy does satisfies these
constraints, so the least time that they allow is a bound:

- every row that an output depends on is computed somewhere;
- what a device computes, it has the inputs of, computed there or received: for r rows of a node at least
  `least * r` rows of an input, `least` the smallest ratio that the node's row rule allows;
- rows received were computed by somebody who sent them; the model's input comes from the requester;
- rows count with the bytes that the wire has of them, where packing losslessly counts as nothing;
- a device's compute time at its best seconds per row, what it receives, and what it sends, each fit into
  the time, as do the requester's two directions and the access point;
- without lanes, where the first node alone reads the input, a device computes nothing before its input is
  there; where the last node makes the only output, it has nothing left to compute when it sends its part.

Left out, so the bound is lower than the truth: halos beyond the ratio, waiting, stairs in the tables,
latency and fixed costs but for one message there and one back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distredge.cluster.segment import node_rows
from distredge.plan.execution import REQUESTER
from distredge.plan.policy import PlanningProblem
from distredge.plan.wire import coding_of, sent_sizes
from distredge.sim.needs import RowNeeds
from distredge.sim.tables import node_times

VARIABLE_LIMIT = 40_000
"""Of the program. Above, devices' data is left out of it, which lowers the bound."""


def lower_bound(problem: PlanningProblem) -> float:
    """Seconds below which no strategy can answer one frame."""
    network, devices = problem.network, range(len(problem.devices))
    needs = RowNeeds(problem.graph)
    there = min(network.overhead_s(REQUESTER, d) for d in devices)
    # rows from a near device may fill a downlink while those of a far requester are still on their way
    there = min([there, *(network.overhead_s(a, b) for a in devices for b in devices if a != b)])
    back = min(network.overhead_s(d, REQUESTER) for d in devices)
    if not any(needs.rows.get(name) for name in problem.graph.inputs):
        there = 0.0
    return there + back + _Program(problem, needs, there).least_seconds()


class _Program:
    """Builds and solves the program; variable 0 is the time between the first message's cost and the last's.

    `there` is the cost of the first: the access point may carry other rows meanwhile.
    """

    def __init__(self, problem: PlanningProblem, needs: RowNeeds, there: float) -> None:
        self.there = there
        self.graph, self.network, self.overlap = problem.graph, problem.network, problem.overlap
        self.needs, self.wire = needs, problem.wire
        self.count = len(problem.devices)
        found: dict[int, Any] = {}
        for device in problem.devices:
            if id(device.times) not in found:
                found[id(device.times)] = node_times(self.graph, device.times).tables
        self.tables = [found[id(device.times)] for device in problem.devices]
        self.nodes = [i for i, n in enumerate(self.graph.nodes) if any(o in needs.rows for o in n.outputs)]
        self.variables = 1
        self.entries: list[tuple[int, int, float]] = []
        self.right: list[float] = []
        self.made = {i: self._new() for i in self.nodes}
        self.moves: dict[str, int] = {}

    def _new(self) -> int:
        """The first of one variable per device."""
        first = self.variables
        self.variables += self.count
        return first

    def _at_most(self, terms: list[tuple[int, float]], right: float) -> None:
        self.entries.extend((len(self.right), variable, value) for variable, value in terms)
        self.right.append(right)

    def least_seconds(self) -> float:
        from scipy.optimize import linprog
        from scipy.sparse import coo_array

        graph = self.graph
        tensors = [name for name in self.needs.rows if graph.tensors[name].row_axis is not None]
        moving = (len(self.nodes) + 2 * len(tensors)) * self.count < VARIABLE_LIMIT
        if moving:
            self.moves = {name: self._new() for name in tensors if not graph.tensors[name].partial_of}
        received = {name: self._receive(name) for name in self.moves}
        sent = {name: self._send(name) for name in self.moves if name in graph.producer}
        for i in self.nodes:
            self._at_most([(self.made[i] + d, -1.0) for d in range(self.count)], -self._height(i))
            if moving:
                self._have_inputs(i)
        answer = self._answer()
        self._fit(received, sent, answer)
        rows, columns, values = zip(*self.entries, strict=True)
        shape = (len(self.right), self.variables)
        cost = np.zeros(self.variables)
        cost[0] = 1.0
        matrix = coo_array((values, (rows, columns)), shape=shape).tocsr()
        solved = linprog(cost, A_ub=matrix, b_ub=self.right, bounds=(0, None), method="highs")
        # The solver's own tolerance must not lift the bound above the truth.
        return float(solved.fun) * (1 - 1e-6) if solved.status == 0 else 0.0

    def _height(self, i: int) -> float:
        """Needed rows of a node; 1 for one that runs whole."""
        if not node_rows(self.graph, i):
            return 1.0
        names = (self.graph.tensors[o].partial_of or o for o in self.graph.nodes[i].outputs if o)
        return float(max(self.needs.rows.get(name, 0) for name in names))

    def _receive(self, name: str) -> list[list[tuple[int, float]]]:
        size = self._sent_row(name)
        return [[(self.moves[name] + d, size)] for d in range(self.count)]

    def _send(self, name: str) -> list[list[tuple[int, float]]]:
        """What each device sends of a tensor: nobody sends more than the others could receive."""
        first, made = self._new(), self.made[self.graph.producer[name]]
        together = [(self.moves[name] + d, 1.0) for d in range(self.count)]
        self._at_most([*together, *((first + d, -1.0) for d in range(self.count))], 0.0)
        for d in range(self.count):
            self._at_most([(first + d, 1.0), (made + d, 1.0 - self.count)], 0.0)
        size = self._sent_row(name)
        return [[(first + d, size)] for d in range(self.count)]

    def _sent_row(self, name: str) -> float:
        """Bytes of a row on the wire, without what a message has beside its rows."""
        tensor = self.graph.tensors[name]
        return float(sent_sizes(tensor, coding_of(self.graph, name, self.wire), tensor.row_bytes)[0])

    def _have_inputs(self, i: int) -> None:
        for name, least in self.needs.least(i):
            if name not in self.moves:
                continue
            before = self.graph.producer.get(name, -1)
            for d in range(self.count):
                terms = [(self.made[i] + d, least), (self.moves[name] + d, -1.0)]
                if before in self.made:
                    terms.append((self.made[before] + d, -1.0))
                self._at_most(terms, 0.0)

    def _answer(self) -> list[list[tuple[int, float]]]:
        """Per device, the bytes of outputs that it sends to the requester."""
        found: list[list[tuple[int, float]]] = [[] for _ in range(self.count)]
        for name in self.graph.outputs:
            before = self.graph.producer.get(name, -1)
            if before not in self.made:
                continue
            first, tensor = self._new(), self.graph.tensors[name]
            self._at_most([(first + d, -1.0) for d in range(self.count)], -float(tensor.rows))
            for d in range(self.count):
                self._at_most([(first + d, 1.0), (self.made[before] + d, -1.0)], 0.0)
                found[d].append((first + d, self._sent_row(name)))
        return found

    def _fit(
        self,
        received: dict[str, list[list[tuple[int, float]]]],
        sent: dict[str, list[list[tuple[int, float]]]],
        answer: list[list[tuple[int, float]]],
    ) -> None:
        network = self.network
        inputs = [name for name in received if name in self.graph.inputs]
        from_requester = [term for name in inputs for each in received[name] for term in each]
        self._in_time(from_requester, network.requester.uplink_mbps)
        self._in_time([term for each in answer for term in each], network.requester.downlink_mbps)
        everything = [term for each in received.values() for terms in each for term in terms]
        everything += [term for each in answer for term in each]
        self._in_time(everything, network.access_point_mbps, self.there)
        early, late = ("", False) if self.overlap else (self._input_first(), self._output_last())
        for d in range(self.count):
            link = network.links[d]
            coming = [term for each in received.values() for term in each[d]]
            going = [term for each in sent.values() for term in each[d]] + answer[d]
            self._in_time(coming, link.downlink_mbps)
            self._in_time(going, link.uplink_mbps)
            terms = [(self.made[i] + d, self._seconds(d, i)) for i in self.nodes]
            if early in received:
                terms += _seconds_of(received[early][d], link.downlink_mbps)
            if late:
                terms += _seconds_of(answer[d], link.uplink_mbps)
            self._at_most([(0, -1.0), *terms], 0.0)

    def _in_time(self, terms: list[tuple[int, float]], mbps: float, longer: float = 0.0) -> None:
        if terms:
            self._at_most([(0, -1.0), *_seconds_of(terms, mbps)], longer)

    def _seconds(self, device: int, node: int) -> float:
        """The least that a device needs for a row of a node, at whatever number of rows."""
        table: NDArray[np.float64] = self.tables[device][node]
        return float((table[1:] / np.arange(1, len(table))).min()) if len(table) > 1 else 0.0

    def _input_first(self) -> str:
        """The input whose only reader is the first of all nodes; "" if there is none such."""
        graph = self.graph
        if len(graph.inputs) != 1 or not graph.nodes or not graph.is_split(0):
            return ""
        return graph.inputs[0] if graph.consumers.get(graph.inputs[0]) == (0,) else ""

    def _output_last(self) -> bool:
        """Whether the last of all nodes makes the only output."""
        outputs = self.graph.outputs
        return len(outputs) == 1 and self.graph.producer.get(outputs[0]) == len(self.graph.nodes) - 1


def _seconds_of(terms: list[tuple[int, float]], mbps: float) -> list[tuple[int, float]]:
    return [(variable, size * 8 / (mbps * 1e6)) for variable, size in terms]
