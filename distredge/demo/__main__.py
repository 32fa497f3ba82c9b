"""`make demo`: text detection on a scanned page, over three local peers of unequal speed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distredge.control.measured import measured_timeline
from distredge.control.profiling import profile_session
from distredge.control.race import race
from distredge.demo.page import SIZE, scanned_page, text_boxes, to_input
from distredge.demo.pictures import draw_result, input_rows
from distredge.errors import DistrEdgeError
from distredge.graph import zoo
from distredge.plan.policy import PlanningProblem, get_policy
from distredge.plan.policy import decide as ask
from distredge.plan.strategy import Strategy
from distredge.plot.timeline import plot_timeline
from distredge.runtime.reference import WholeModel, difference
from distredge.runtime.session import InferenceSession
from distredge.sim.bound import lower_bound
from distredge.sim.pricing import Pricer

SHARES = (0.8, 0.6, 0.4)
BASELINES = ("offload", "modnn", "mednn", "coedge", "deepthings", "deeperthings", "aofl")
PROFILE_S, TRAINING_S, PLANNING_S = 6.0, 4.0, 2.0
ROUNDS, WARM_UP, FRAMES = 2, 1, 2
OUTPUT = Path("demo-output")


def main() -> int:
    """Runs the demo; returns the exit code."""
    start = time.monotonic()
    OUTPUT.mkdir(exist_ok=True)
    picture = scanned_page()
    feed = {"x": to_input(picture)}
    model = OUTPUT / "pp-ocrv6-det.onnx"
    zoo.write(zoo.get("pp-ocrv6-det").build(None, 0), str(model))
    print(f"PP-OCRv6 text detection on a scanned page of {SIZE}x{SIZE}, over three peers on this machine")
    expected = WholeModel(model, threads=1).run(feed)
    shapes = {"x": feed["x"].shape}
    with (
        InferenceSession(model, local_peers=SHARES, policy="equal", input_shapes=shapes) as session,
        session.undisturbed(),
    ):
        shares = ", ".join(
            f"{name} {share:g}" for name, share in zip(session.plan.devices, SHARES, strict=True)
        )
        print(f"  shares of a core ({session.limited_by}): {shares}")
        strategies, problem = decide(session, feed)
        run(session, feed, strategies, problem, expected, picture)
        session.plan.save(OUTPUT / "plan.json")
    model.unlink()
    print(f"  pictures, plan and trace in {OUTPUT}/ ({time.monotonic() - start:.0f} s in all)")
    return 0


def decide(session: InferenceSession, feed: dict[str, Any]) -> tuple[dict[str, Strategy], PlanningProblem]:
    """Measures the peers and asks the policies: the fastest peer alone, the best baseline, an agent that
    learns on what was measured, and `auto`, which knows them all."""
    with progress("measuring the peers") as show:
        measured = profile_session(session, feed, budget_s=PROFILE_S, progress=show)
    problem = measured.problem(session.model.graph, budget_s=PLANNING_S)
    pricer = Pricer(problem)
    found = {name: get_policy(name).find_strategy(problem) for name in BASELINES}
    best = min(found, key=lambda name: pricer.latency_s(found[name]))
    strategies = {"the fastest peer alone": found["offload"]}
    if best != "offload":
        strategies[f"best baseline, {best}"] = found[best]
    with progress("training the agent") as show:
        osds: Any = get_policy("osds", progress=lambda met, of, _: show(met, of))
        strategies["agent, osds"] = osds.find_strategy(replace(problem, budget_s=TRAINING_S))
    trained = () if osds.agent is None else (get_policy("osds", actor=osds.agent),)
    with progress("planning") as show:
        show(0, 1)
        decision = ask(problem, get_policy("auto", others=trained))
        show(1, 1)
    strategies["auto"] = decision.strategy
    print(f"  auto takes the strategy of {decision.winner}")
    return strategies, problem


def run(
    session: InferenceSession,
    feed: dict[str, Any],
    strategies: dict[str, Strategy],
    problem: PlanningProblem,
    expected: list[Any],
    picture: Any,
) -> None:
    """Runs every strategy, interleaved; prints the table; draws what the last one did."""
    with progress("running") as show:
        raced = race(session, feed, strategies, rounds=ROUNDS, warm_up=WARM_UP, frames=FRAMES, progress=show)
    outputs = raced["auto"].outputs
    pricer = Pricer(problem)
    medians = {name: one.latency_s for name, one in raced.items()}
    single = medians["the fastest peer alone"]
    print(f"\n  {'':<28} {'measured':>10} {'predicted':>10} {'speedup':>8}")
    for name, median in medians.items():
        predicted = pricer.latency_s(strategies[name])
        print(f"  {name:<28} {median * 1e3:>7.0f} ms {predicted * 1e3:>7.0f} ms {single / median:>8.2f}")
    print(f"  {'lower bound':<28} {'':>10} {lower_bound(problem) * 1e3:>7.0f} ms\n")
    error = difference(outputs, expected)
    boxes = text_boxes(outputs[0])
    print(f"  {len(boxes)} text regions; largest difference to onnxruntime {error.absolute:.2g}")
    timeline = measured_timeline(session.plan, session.trace())
    draw_result(picture, boxes, input_rows(session.plan), OUTPUT / "page.png")
    plot_timeline(
        timeline, OUTPUT / "timeline.png", f"auto, one frame, measured: {timeline.latency_s * 1e3:.0f} ms"
    )
    timeline.save_trace(OUTPUT / "trace.json")


@contextmanager
def progress(title: str) -> Iterator[Any]:
    """A progress bar on a terminal, a line otherwise."""
    is_terminal = sys.stderr.isatty()
    begin = time.monotonic()

    def show(done: int, of: int) -> None:
        if is_terminal:
            bar = "#" * round(30 * done / of)
            print(f"\r  {title:<22} [{bar:<30}] {done}/{of}", end="", file=sys.stderr, flush=True)

    yield show
    if is_terminal:
        print(file=sys.stderr)
    else:
        print(f"  {title}: {time.monotonic() - begin:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DistrEdgeError as problem_found:
        sys.exit(f"distredge: error: {problem_found}")
    except KeyboardInterrupt:
        sys.exit(130)
