"""Strategy -> ExecutionPlan: the only place where decisions become tasks and transfers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from distredge.errors import StrategyError
from distredge.graph.model import Graph
from distredge.graph.part import NodePart, PartSpec
from distredge.graph.rows import Crop, Rows
from distredge.plan.demand import WHOLE, Demand, Ownership, find_demand, find_stages
from distredge.plan.execution import (
    REQUESTER,
    ExecutionPlan,
    Piece,
    Task,
    TaskInput,
    TaskOutput,
    TensorInfo,
    Transfer,
)
from distredge.plan.strategy import SplitDecision, Strategy, are_lanes, run_order
from distredge.plan.volumes import Volume, find_volumes
from distredge.plan.wire import EXACT, check_wire, coding_of

NONE = Rows(0, 0)


def compile_plan(
    graph: Graph, strategy: Strategy, devices: Sequence[str], *, model: str = "", wire: str = EXACT
) -> ExecutionPlan:
    """Turns a strategy into the tasks and transfers that peers execute and the simulator prices.

    Args:
        graph: the model.
        strategy: one split decision per volume.
        devices: their names, in the order of the parts.
        model: SHA-256 of the model's weights.
        wire: how rows may be coded on the wire, one of `distredge.plan.wire.WIRES`.

    Raises:
        StrategyError: the strategy does not fit the graph or the devices.
        InputError: there is no such wire.
    """
    check_wire(wire)
    if strategy.beside:
        check_strategy(graph, strategy, len(devices))
    return ExecutionPlan.dealt(
        [_Compiler(graph, way, tuple(devices), wire).compile(model) for way in strategy.ways]
    )


def check_strategy(graph: Graph, strategy: Strategy, devices: int) -> tuple[Volume, ...]:
    """The strategy's volumes.

    Raises:
        StrategyError: a cut, a number of parts or a bound does not fit.
    """
    for way in strategy.beside:
        if way.beside:
            raise StrategyError("a strategy beside another one has strategies beside itself")
        check_strategy(graph, way, devices)
    volumes = find_volumes(graph, strategy.scheme)
    if len(strategy.splits) != len(volumes):
        raise StrategyError(
            f"{len(volumes)} volumes need as many split decisions, not {len(strategy.splits)}"
        )
    for at, (volume, split) in enumerate(zip(volumes, strategy.splits, strict=True)):
        if strategy.lanes and split.parts != len(strategy.lanes):
            raise StrategyError(f"volume {at} has {split.parts} parts, there are {len(strategy.lanes)} lanes")
        if not strategy.lanes and split.parts != devices:
            raise StrategyError(f"volume {at} is split for {split.parts} devices, there are {devices}")
        if not split.is_valid or split.rows != volume.rows:
            raise StrategyError(
                f"volume {at} has {volume.rows} rows ({volume.reference}); its bounds are {split.bounds}"
            )
    if not are_lanes(strategy.lanes, devices):
        raise StrategyError(f"lanes {strategy.lanes} are not those of devices 0 to {devices - 1}, in order")
    if strategy.tail_device is not None and not 0 <= strategy.tail_device < devices:
        raise StrategyError(f"tail device {strategy.tail_device} is not one of {devices} devices")
    return volumes


def tail_device(strategy: Strategy) -> int:
    """The device that runs the tail: the named one, or the one with most rows in the last volume."""
    if strategy.tail_device is not None:
        return strategy.tail_device
    return biggest_part(strategy.merged.splits[-1])


def biggest_part(split: SplitDecision) -> int:
    """The part with most rows; the first of equals."""
    return max(range(split.parts), key=lambda at: (split.part(at).size, -at))


class _Compiler:
    """Walks the volumes stage by stage and keeps, per device, where each row it has came from."""

    def __init__(self, graph: Graph, strategy: Strategy, devices: tuple[str, ...], wire: str) -> None:
        self.graph = graph
        self.wire = wire
        self.devices = devices
        self.volumes = check_strategy(graph, strategy, len(devices))
        self.strategy = strategy.joined(at for at, volume in enumerate(self.volumes) if volume.reduces)
        self.tasks: list[Task] = []
        self.transfers: list[Transfer] = []
        self.parts: dict[str, PartSpec] = {}
        self.held: dict[tuple[int, str], list[Piece]] = {}
        self.owners: dict[str, list[tuple[int, Rows, int]]] = {}
        self.heights: dict[str, int] = {}

    def compile(self, model: str) -> ExecutionPlan:
        for at, (volume, split) in enumerate(zip(self.volumes, self.strategy.splits, strict=True)):
            self._volume(at, volume, split)
        self._tail()
        results = tuple(self._fetch(REQUESTER, name, self._all_rows(name)) for name in self.graph.outputs)
        return ExecutionPlan(
            model=model,
            graph=self.graph.digest,
            devices=self.devices,
            strategy=self.strategy,
            inputs=self.graph.inputs,
            outputs=self.graph.outputs,
            tensors=self._tensor_infos(results),
            parts=self.parts,
            tasks=tuple(self.tasks),
            transfers=tuple(self.transfers),
            results=results,
            wire=self.wire,
        )

    def _volume(self, at: int, volume: Volume, split: SplitDecision) -> None:
        own = Ownership(self.graph, split)
        for i in volume.nodes:
            for name in self.graph.nodes[i].outputs:
                if name:
                    self.heights[name] = own.height(name)
        rowed = [n for n in (*volume.outputs, *volume.syncs) if self.graph.tensors[n].row_axis is not None]
        lead = -1 if any(own.height(name) for name in rowed) else biggest_part(split)
        owners = self.strategy.part_devices
        demands = [
            find_demand(self.graph, volume, own, self._height, part, part == lead)
            for part in range(split.parts)
        ]
        stages = find_stages(self.graph, volume)
        for stage in range(max(stages.values(), default=-1) + 1):
            for part in run_order(owners):
                demand = demands[part]
                nodes = [i for i in volume.nodes if stages[i] == stage and i in demand.needs]
                if nodes:
                    self._task(owners[part], part, at, stage, nodes, demand, own, volume)

    def _tail(self) -> None:
        nodes = tuple(sorted(self.graph.tail))
        if not nodes:
            return
        device = tail_device(self.strategy)
        own = Ownership(self.graph, SplitDecision((0,) * (device + 1) + (1,) * (len(self.devices) - device)))
        made = {name for i in nodes for name in self.graph.nodes[i].outputs if name}
        outputs = tuple(name for name in self.graph.outputs if name in made)
        volume = Volume(nodes, (), outputs, None, 1, ())
        demand = find_demand(self.graph, volume, own, self._height, device, lead=True)
        run = [i for i in nodes if i in demand.needs]
        if run:
            self._task(device, device, len(self.volumes), 0, run, demand, own, volume)

    def _height(self, name: str) -> int:
        return self.heights.get(name, self.graph.tensors[name].rows)

    def _all_rows(self, name: str) -> Rows:
        return Rows(0, self._height(name)) if self.graph.tensors[name].row_axis is not None else WHOLE

    # ------------------------------------------------------------------ tasks

    def _task(
        self,
        device: int,
        part: int,
        at: int,
        stage: int,
        nodes: list[int],
        demand: Demand,
        own: Ownership,
        volume: Volume,
    ) -> None:
        made = {name: demand.makes[name] for i in nodes for name in self.graph.nodes[i].outputs if name}
        read = self._task_reads(nodes, demand, made)
        inputs = tuple(self._fetch(device, name, rows) for name, rows in read.items())
        kept = tuple(name for name in made if self._leaves(name, nodes, volume))
        task = len(self.tasks)
        outputs = []
        for name in kept:
            rows = made[name]
            owned = own.rows(name, part).intersect(rows) if self._is_rowed(name) else rows
            outputs.append(TaskOutput(name, rows, owned))
            self.held.setdefault((device, name), []).append(Piece(rows, task=task))
            if owned and (name in volume.outputs or name in volume.syncs):
                self.owners.setdefault(name, []).append((device, owned, task))
        key = self._part(nodes, demand, {**read, **made}, tuple(read), kept)
        self.tasks.append(Task(task, device, at, stage, key, inputs, tuple(outputs)))

    def _task_reads(self, nodes: list[int], demand: Demand, made: dict[str, Rows]) -> dict[str, Rows]:
        """Tensors that the task reads from outside itself, and the rows of each."""
        read: dict[str, Rows] = {}
        for i in nodes:
            for name, rows in zip(self.graph.nodes[i].inputs, demand.needs[i], strict=True):
                if not name or name in made or self.graph.tensors[name].constant:
                    continue
                wanted = rows if rows is not None and self._is_rowed(name) else self._all_rows(name)
                read[name] = read.get(name, NONE).hull(wanted)
        if not read and self.graph.inputs:
            # Constants alone: a row of an input tells the device that there is a frame.
            read[self.graph.inputs[0]] = WHOLE
        return read

    def _is_rowed(self, name: str) -> bool:
        return self.graph.tensors[name].row_axis is not None

    def _leaves(self, name: str, nodes: list[int], volume: Volume) -> bool:
        """Whether a tensor made by a task is read by another task or another device."""
        if name in volume.outputs or name in volume.syncs:
            return True
        inside = set(nodes)
        return any(c not in inside for c in self.graph.consumers.get(name, ()))

    def _part(
        self,
        nodes: list[int],
        demand: Demand,
        present: dict[str, Rows],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
    ) -> str:
        """The key of the session that runs these nodes; new sessions are added to the plan."""
        spec = PartSpec(tuple(self._node_part(i, demand, present) for i in nodes), inputs, outputs)
        key = hashlib.sha256(repr(spec).encode()).hexdigest()[:16]
        self.parts[key] = spec
        return key

    def _node_part(self, i: int, demand: Demand, present: dict[str, Rows]) -> NodePart:
        node = self.graph.nodes[i]
        crops: list[Crop | None] = []
        for name, rows, axis in zip(node.inputs, demand.needs[i], node.rule.axes, strict=True):
            if not name or rows is None or axis is None:
                crops.append(None)
                continue
            tensor = self.graph.tensors[name]
            whole = Rows(0, tensor.shape[axis])
            there = present[name] if tensor.row_axis is not None and not tensor.constant else whole
            top, bottom = rows.start - there.start, there.stop - rows.stop
            crops.append(Crop(axis, top, bottom) if top or bottom else None)
        split = node.form == "node" and self.graph.is_split(i)
        edit = node.rule.edit(demand.makes[next(filter(None, node.outputs))]) if split else None
        return NodePart(node.source, node.form, tuple(crops), edit)

    # ------------------------------------------------------------------ data movement

    def _fetch(self, device: int, name: str, wanted: Rows) -> TaskInput:
        """Finds every wanted row: first what the device has already, the rest by new transfers."""
        held = self.held.setdefault((device, name), [])
        if device == REQUESTER and name in self.graph.inputs:
            return TaskInput(name, wanted, (Piece(wanted),))
        pieces, missing = _take(held, [wanted])
        sources = self.owners.get(name) or [(REQUESTER, wanted, -1)]
        if not self._is_rowed(name):
            sources = [min(sources, key=lambda source: source[0] != tail_device(self.strategy))]
        for source, rows, task in sources:
            for gap in missing:
                if common := gap.intersect(rows):
                    coding = coding_of(self.graph, name, self.wire)
                    transfer = Transfer(len(self.transfers), name, common, source, device, task, coding)
                    self.transfers.append(transfer)
                    pieces.append(Piece(common, transfer=transfer.id))
                    held.append(pieces[-1])
        pieces.sort(key=lambda piece: piece.rows)
        if sum(piece.rows.size for piece in pieces) != wanted.size:
            raise StrategyError(f"rows {wanted} of {name!r} are nobody's; this is a bug in compile")
        return TaskInput(name, wanted, tuple(pieces))

    def _tensor_infos(self, results: Iterable[TaskInput]) -> dict[str, TensorInfo]:
        names: dict[str, None] = {}
        for task in self.tasks:
            names.update(dict.fromkeys(item.tensor for item in task.inputs))
            names.update(dict.fromkeys(made.tensor for made in task.outputs))
        names.update(dict.fromkeys(item.tensor for item in results))
        infos = {}
        for name in names:
            tensor = self.graph.tensors[name]
            shape = tensor.shape
            if tensor.row_axis is not None:
                shape = (*shape[: tensor.row_axis], self._height(name), *shape[tensor.row_axis + 1 :])
            infos[name] = TensorInfo(tensor.dtype, shape, tensor.row_axis, tensor.dynamic)
        return infos


def _take(held: list[Piece], wanted: list[Rows]) -> tuple[list[Piece], list[Rows]]:
    """Serves wanted rows from held pieces; returns the pieces used and the rows still missing."""
    used: list[Piece] = []
    for piece in held:
        rest: list[Rows] = []
        for rows in wanted:
            if common := piece.rows.intersect(rows):
                used.append(Piece(common, piece.transfer, piece.task))
            rest.extend(rows.minus(piece.rows))
        wanted = rest
    return used, wanted
