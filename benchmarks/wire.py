"""`sudo python -m benchmarks.wire`: what coding on the wire gains, on real activations and over slow links.

First the codecs alone: half the rows of maps of three models, given a photograph or a scanned page. Then
latency over four hosts of unequal speed with a link of 50 Mbit/s each: the same picture as float32 and as
uint8, under every wire, each by the plan that `search` finds for it; interleaved rounds. Writes
benchmarks/results/wire.json, in which models that were left out keep their figures, and with --docs a section
of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.agreement import peers
from benchmarks.sections import write_section
from benchmarks.wire_tables import report
from distredge.cluster.network import Link, Network
from distredge.control.profiling import profile_session
from distredge.graph import zoo
from distredge.graph.importer import Model, load_model
from distredge.graph.preprocess import Preprocess, parse_preprocess, with_preprocessing
from distredge.graph.rows import Rows
from distredge.plan.compile import compile_plan
from distredge.plan.execution import ExecutionPlan, TensorInfo, Transfer
from distredge.plan.policy import PlanningProblem, get_policy
from distredge.plan.wire import FP16, INT8, LOSSLESS, RAW, ROUNDED, WIRES
from distredge.runtime.coding import check_rows, decode_rows, encode_rows
from distredge.runtime.engine import whole_session
from distredge.runtime.reference import WholeModel, difference, top_classes
from distredge.runtime.session import InferenceSession
from launch.testbed.bed import Testbed

SIZES = {"vgg16": 224, "resnet50": 224, "pp-ocrv6-det": 640}
SHARES, LINK_MBPS, FAST_MBPS = (0.6, 0.4, 0.3, 0.2), 50.0, 2000.0
SLOW = Network((Link(LINK_MBPS, LINK_MBPS, 0.0, 1.5e-4),) * len(SHARES), Link(1000.0, 1000.0, 0.0, 1.5e-4))
"""What plans are found for. A message costs 0.12 ms at either end here, and its packets take their time."""
PROFILE_S = 20.0
DEPTHS = 4
SECTION, MADE_BY = "wire", "sudo python -m benchmarks.wire --docs"
RESULTS = Path(__file__).parent / "results" / "wire.json"


@dataclass(frozen=True)
class Pictures:
    """A model that takes normalised floats, one that takes bytes, and the same picture for both."""

    floats: Model
    bytes: Model
    picture: np.ndarray[Any, np.dtype[np.uint8]]
    how: Preprocess

    @classmethod
    def of(cls, name: str) -> Pictures:
        entry, size = zoo.get(name), SIZES[name]
        shape, how = (1, 3, size, size), parse_preprocess("imagenet")
        source = entry.build(None if 0 in entry.shape else shape).SerializeToString()
        shapes = {entry.input: shape}
        return cls(
            load_model(source, shapes),
            load_model(with_preprocessing(source, how), shapes),
            picture(size, page=name == "pp-ocrv6-det"),
            how,
        )

    def feed(self, *, as_bytes: bool) -> dict[str, np.ndarray[Any, Any]]:
        (name,) = self.floats.graph.inputs
        if as_bytes:
            return {name: self.picture}
        mean, std = (np.array(v, np.float32).reshape(1, -1, 1, 1) for v in (self.how.mean, self.how.std))
        return {name: (self.picture - mean) / std}


def picture(size: int, *, page: bool) -> np.ndarray[Any, np.dtype[np.uint8]]:
    from skimage import data, transform

    image = data.page() if page else data.astronaut()
    colours = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image
    scaled = np.rint(transform.resize(colours, (size, size), preserve_range=True)).astype(np.uint8)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


# ---------------------------------------------------------------------- codecs


def codecs(name: str, pictures: Pictures) -> Iterator[dict[str, Any]]:
    """Ratio and speed of each coding at some depths of a model."""
    model = pictures.floats
    graph = model.graph
    places = [
        graph.cut_points[at] for at in np.linspace(0, len(graph.cut_points) - 1, 3 * DEPTHS).astype(int)
    ]
    places = [p for p in dict.fromkeys(places) if graph.tensors[p].total_bytes > 64_000][::3][:DEPTHS]
    proto = onnx.load_from_string(model.onnx)
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(place) for place in places)
    session = whole_session(proto.SerializeToString(), model.weights.parent, threads=1)
    arrays = session.run(places, pictures.feed(as_bytes=False))
    for place, array in zip(places, arrays, strict=True):
        tensor = graph.tensors[place]
        rows = Rows(0, tensor.rows // 2)
        half = np.ascontiguousarray(array[:, :, : rows.stop])
        info = TensorInfo(tensor.dtype, tensor.shape, tensor.row_axis)
        made_by = graph.nodes[graph.producer[place]].op_type
        row: dict[str, Any] = {"model": name, "behind": made_by, "bytes": half.nbytes}
        row["zeros"] = float((half == 0).mean())
        for coding in (LOSSLESS, FP16, INT8):
            row[coding] = one_codec(half, coding, info, rows)
        yield row


def one_codec(half: np.ndarray[Any, Any], coding: str, info: TensorInfo, rows: Rows) -> dict[str, float]:
    coded = encode_rows(half, coding, info)
    if coded is None:
        return {"ratio": 1.0}
    check_rows(coded, Transfer(0, "", rows, 0, 1, 0, coding), info)
    return {
        "ratio": len(coded.payload) / half.nbytes,
        "encode_mb_per_s": half.nbytes / 1e6 / fastest(partial(encode_rows, half, coding, info)),
        "decode_mb_per_s": half.nbytes / 1e6 / fastest(partial(decode_rows, coded, info, rows)),
    }


def fastest(action: Callable[[], object], times: int = 5) -> float:
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        spent.append(time.perf_counter() - start)
    return min(spent)


# ---------------------------------------------------------------------- latency


@dataclass
class Contender:
    """One input and wire of a model."""

    image: str
    wire: str
    session: InferenceSession
    plan: ExecutionPlan
    feed: dict[str, np.ndarray[Any, Any]]
    seconds: list[float]
    sent: int = 0


def latencies(name: str, pictures: Pictures, budget_s: float, rounds: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        # The model travels while links are fast.
        hosts = stack.enter_context(peers([(str(s), int(FAST_MBPS)) for s in SHARES], Path(folder)))
        contenders: list[Contender] = []
        for image, model in (("float32", pictures.floats), ("uint8", pictures.bytes)):
            session = stack.enter_context(InferenceSession(model, hosts=hosts, policy="equal"))
            feed = pictures.feed(as_bytes=image == "uint8")
            measured = profile_session(session, feed, budget_s=PROFILE_S, network=SLOW)
            stack.enter_context(session.undisturbed())
            for wire, plan in plans(model, measured.problem(model.graph, budget_s=budget_s)).items():
                session.use(plan)
                contenders.append(Contender(image, wire, session, plan, feed, []))
        bed = Testbed.load("agree")
        for at in range(len(SHARES)):
            bed.set(f"h{at}", link_mbps=LINK_MBPS)
        expected = WholeModel(pictures.floats.source).run(pictures.feed(as_bytes=False))
        rows = []
        for turn in range(rounds + 1):
            for each in contenders:
                run_turn(each, warm_up=turn == 0)
        for each in contenders:
            each.session.use(each.plan)
            got = each.session.run(None, each.feed)
            rows.append(row_of(name, each, expected, got))
        return rows


def run_turn(each: Contender, *, warm_up: bool) -> None:
    """Three frames of one contender; the first is not counted. Warming up, it runs until links are known."""
    each.session.use(each.plan)
    end = time.monotonic() + (2.5 if warm_up else 0.0)
    each.session.run(None, each.feed)
    each.session.trace()
    for _ in range(2):
        start = time.perf_counter()
        each.session.run(None, each.feed)
        if not warm_up:
            each.seconds.append(time.perf_counter() - start)
    each.sent = sum(a.bytes for a in each.session.trace() if a.what == "transfer") // 2
    while time.monotonic() < end:
        each.session.run(None, each.feed)


def plans(model: Model, problem: PlanningProblem) -> dict[str, ExecutionPlan]:
    """What `search` finds under each wire; one strategy for `exact` and `raw`, which cost it the same."""
    search = get_policy("search")
    found = {wire: search.find_strategy(replace(problem, wire=wire)) for wire in (RAW, *ROUNDED)}
    names = [device.name for device in problem.devices]
    return {
        wire: compile_plan(
            model.graph, found.get(wire, found[RAW]), names, model=model.weights_sha256, wire=wire
        )
        for wire in WIRES
    }


def row_of(name: str, each: Contender, expected: list[Any], got: list[Any]) -> dict[str, Any]:
    agree, classes = top_classes(got, expected)
    low, median, high = np.quantile(each.seconds, [0.1, 0.5, 0.9])
    return {
        "model": name,
        "image": each.image,
        "wire": each.wire,
        "latency_s": {"median": float(median), "p10": float(low), "p90": float(high)},
        "frames": len(each.seconds),
        "sent_bytes": each.sent,
        "raw_bytes": sum(each.plan.transfer_bytes(t) for t in each.plan.transfers),
        "rel_error": difference(got, expected).relative,
        "top1": agree / classes if classes else None,
    }


# ---------------------------------------------------------------------- tables


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wire", description=__doc__)
    parser.add_argument("models", nargs="*", choices=[*SIZES, []], help="only these (default: all)")
    parser.add_argument("--budget-s", type=float, default=5.0, help="of each plan (default: 5)")
    parser.add_argument("--rounds", type=int, default=6, help="interleaved rounds (default: 6)")
    parser.add_argument("--codecs-only", action="store_true", help="no testbed; need not be root")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/benchmarks.md")
    args = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in args.models or SIZES:
        pictures = Pictures.of(name)
        found = results.setdefault(name, {})
        found["codecs"] = list(codecs(name, pictures))
        if not args.codecs_only:
            found["load"] = os.getloadavg()[0]
            found["latency"] = latencies(name, pictures, args.budget_s, args.rounds)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    text = report([results[name] for name in SIZES if name in results], SHARES, LINK_MBPS)
    print(text)
    if args.docs:
        write_section(SECTION, MADE_BY, text)


if __name__ == "__main__":
    main()
