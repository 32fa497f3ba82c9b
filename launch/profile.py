"""Measures every device on a model, and every link, and writes a hosts file to plan with."""

from __future__ import annotations

import hashlib
import json
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zmq

from distredge.cluster.hosts import Cluster, Provider
from distredge.cluster.hosts_writer import format_hosts
from distredge.cluster.keys import with_keys_named
from distredge.errors import LaunchError, ModelError
from distredge.graph.preprocess import parse_preprocess
from distredge.runtime.message_cost import measure_message_s
from launch.fleet import Host, Outcome, Say, on_all
from launch.session import HostSession, connection_to, open_connection, sha256, start_program

_SMALL_BYTES, _ROUNDS, _STREAM = 64, 30, 300
_SECONDS_PER_MESSAGE = 0.3
_LARGEST_BYTES = 1 << 26
_ANSWER_MS = 20_000
_SPARE = 0.8
"""Of a core beside those that compute: with so much, receiving takes nothing from them."""


@dataclass(frozen=True, slots=True)
class LinkMeasure:
    """Between this machine and a host, over ZeroMQ as the peers use it, encryption included.

    Attributes:
        uplink_mbps, downlink_mbps: payload, seen from the host.
        latency_ms: one way.
        send_ms_per_mb, receive_ms_per_mb: by how much each megabyte that leaves, or comes, delays what the
            host computes meanwhile; 0 if it has a core to spare for that.
    """

    uplink_mbps: float
    downlink_mbps: float
    latency_ms: float
    send_ms_per_mb: float
    receive_ms_per_mb: float


def profile(
    cluster: Cluster,
    model: Path,
    *,
    input_shapes: Sequence[str] = (),
    preprocess: str | None = None,
    budget_s: float = 45.0,
) -> list[Outcome]:
    """Measures devices side by side, then links one after the other, since all of them share this machine's.

    Writes `NAME.profiles/DEVICE/DIGEST.json` and `NAME.measured.ini` beside the hosts file NAME.ini. The
    latter is the hosts file with profiles and rates filled in.

    Args:
        cluster: its devices are deployed.
        model: an ONNX file.
        input_shapes, preprocess, budget_s: as of `distredge profile`, for each device.

    Raises:
        ModelError: the model cannot be read.
        InputError: `preprocess` cannot be understood.
    """
    options = ["--budget-s", str(budget_s)]
    for shape in input_shapes:
        options += ["--input-shape", shape]
    if preprocess is not None:
        parse_preprocess(preprocess)
        options += ["--preprocess", preprocess]
    files = _model_files(model)
    digests = {file.name: sha256(file) for file in files}
    shelf = _shelf(digests)
    folder = Path(cluster.path).resolve().parent / f"{cluster.name}.profiles"

    def measure(session: HostSession, host: Host, say: Say) -> list[Outcome]:
        for file in files:
            digest = digests[file.name]
            if session.ask("missing", files={file.name: digest}, shelf=shelf):
                say(f"sending {file.name}, {file.stat().st_size / 1e6:.1f} MB")
                session.put(file, digest, shelf=shelf)
        cores = session.ask("facts")["cores"]
        return [_device(session, provider, cores, say) for provider in host.providers]

    def _device(session: HostSession, provider: Provider, cores: int, say: Say) -> Outcome:
        say(f"measuring {provider.name} on {model.name}")
        words = ["--threads", str(provider.threads or cores), "--name", provider.name, *options]
        found = session.ask("profile", model=model.name, shelf=shelf, words=words)
        place = folder / provider.name / f"{found['profile']['graph'][:16]}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(found["profile"], indent=1) + "\n")
        row = found["row"]
        text = (
            f"{row['seconds'] * 1e3:.1f} ms alone, spread {row['spread']:.1%}, {row['row_counts']} row counts"
        )
        return Outcome(provider.name, True, text, row)

    outcomes = on_all(cluster, "profile", measure, lock=True)
    links = {o.name: _link_outcome(cluster, o) for o in outcomes if o.ok}
    measured = Path(cluster.path).with_suffix(".measured.ini")
    measured.write_text(format_hosts(_measured(cluster, outcomes, links, folder), _heading(model)))
    return [_joined(outcome, links.get(outcome.name)) for outcome in outcomes]


def measure_link(provider: Provider, threads: int) -> LinkMeasure:
    """Measures the link between this machine and a deployed host, whose engine has so many threads.

    Raises:
        LaunchError: the host cannot be reached, by SSH or by ZeroMQ.
    """
    token = secrets.token_hex(16)
    with HostSession(provider) as session:
        release = session.ask("facts")["folder"]
        held = session.ask_plain("ports", address=provider.address, numbers=[provider.port])
    port = 0 if held[str(provider.port)] else provider.port
    connection = connection_to(provider)
    open_connection(connection, provider)
    try:
        inside = replace(provider, python=f"{release}/current/bin/python")
        arguments = [token, str(provider.address), str(port)]
        _, channel, printed = start_program(connection, inside, ("basics", "facts", "echo"), arguments)
        found = printed.readline().split()
        if len(found) != 2:
            said = channel.makefile_stderr("rb").read().decode(errors="replace").strip().splitlines()
            raise LaunchError(f"cannot measure its link: {said[-1] if said else 'no answer'}")
        host = f"[{provider.address}]" if ":" in str(provider.address) else provider.address
        return _measure(f"tcp://{host}:{int(found[0])}", token.encode(), found[1], threads)
    finally:
        connection.close()


def _measure(endpoint: str, token: bytes, key: bytes, threads: int) -> LinkMeasure:
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.RCVTIMEO, _ANSWER_MS)
    socket.set(zmq.IPV6, "[" in endpoint)
    public, secret = zmq.curve_keypair()
    for option, value in (
        (zmq.CURVE_SERVERKEY, key),
        (zmq.CURVE_PUBLICKEY, public),
        (zmq.CURVE_SECRETKEY, secret),
    ):
        socket.set(option, value)
    socket.connect(endpoint)

    moved = 0

    def tell(what: bytes, number: int) -> float:
        socket.send_multipart([token, what, str(number).encode(), b""])
        return float(socket.recv())

    def ask(what: bytes, number: int, payload: bytes = b"") -> float:
        nonlocal moved
        began = time.perf_counter()
        socket.send_multipart([token, what, str(number).encode(), payload], copy=False)
        socket.recv_multipart(copy=False)
        moved += len(payload) or number
        return time.perf_counter() - began

    def rate_mbps(message: Callable[[int], float], round_trip_s: float) -> float:
        size = 1 << 14
        while True:
            seconds = max(1e-6, message(size) - round_trip_s)
            if seconds > _SECONDS_PER_MESSAGE / 3 or size == _LARGEST_BYTES:
                break
            size = min(_LARGEST_BYTES, int(size * min(16, max(2.0, _SECONDS_PER_MESSAGE / seconds))))
        best = [max(1e-6, message(size) - round_trip_s) for _ in range(3)]
        return size * 8 / 1e6 / statistics.median(best)

    try:
        small = bytes(_SMALL_BYTES)
        round_trip_s = statistics.median([ask(b"take", 0, small) for _ in range(_ROUNDS)][5:])
        began = time.perf_counter()
        for _ in range(_STREAM):
            socket.send_multipart([token, b"note", b"0", small])
        ask(b"take", 0, small)
        fixed_s = max(0.0, time.perf_counter() - began - round_trip_s) / _STREAM
        payload = bytes(_LARGEST_BYTES)
        cores = tell(b"cores", threads + 1)
        busy_s, moved = tell(b"clock", 0), 0
        down = rate_mbps(lambda size: ask(b"take", 0, payload[:size]), round_trip_s)
        receive_s = (tell(b"clock", 0) - busy_s) / moved / cores
        busy_s, moved = tell(b"clock", 0), 0
        up = rate_mbps(lambda size: ask(b"give", size), round_trip_s)
        send_s = (tell(b"clock", 0) - busy_s) / moved / cores
    except zmq.Again:
        raise LaunchError(f"no answer from {endpoint} over ZeroMQ; is there a firewall?") from None
    finally:
        socket.close()
        context.term()
    costs = (send_s * 1e9, receive_s * 1e9) if cores < threads + _SPARE else (0.0, 0.0)
    return LinkMeasure(up, down, max(0.0, round_trip_s / 2 - fixed_s) * 1e3, *costs)


def _link_outcome(cluster: Cluster, measured: Outcome) -> LinkMeasure | LaunchError:
    provider = next(provider for provider in cluster.providers if provider.name == measured.name)
    try:
        return measure_link(provider, measured.detail["threads"])
    except LaunchError as error:
        return error


def _joined(outcome: Outcome, link: LinkMeasure | LaunchError | None) -> Outcome:
    if link is None:
        return outcome
    if isinstance(link, LaunchError):
        return replace(outcome, ok=False, text=f"{outcome.text}; {link}")
    rates = f"{link.uplink_mbps:.1f} up, {link.downlink_mbps:.1f} down Mbit/s"
    delays = f"latency {link.latency_ms:.2f} ms, {outcome.detail['message_ms'] * 1e3:.0f} us a message"
    if link.receive_ms_per_mb:
        lost = f"{link.receive_ms_per_mb:.1f} and {link.send_ms_per_mb:.1f} ms"
        delays += f", {lost} of computing lost for each MB that comes and leaves"
    return replace(outcome, text=f"{outcome.text}; {rates}, {delays}")


def _measured(cluster: Cluster, outcomes: list[Outcome], links: dict[str, Any], folder: Path) -> Cluster:
    rows = {outcome.name: outcome.detail for outcome in outcomes if outcome.ok}
    providers = []
    for provider in cluster.providers:
        row, link = rows.get(provider.name), links.get(provider.name)
        if row is not None:
            place = str(folder / provider.name)
            provider = replace(provider, profile=place, threads=row["threads"], fixed_ms=row["message_ms"])
        if isinstance(link, LinkMeasure):
            provider = replace(
                provider,
                uplink_mbps=round(link.uplink_mbps, 2),
                downlink_mbps=round(link.downlink_mbps, 2),
                latency_ms=round(link.latency_ms, 4),
                send_ms_per_mb=round(link.send_ms_per_mb, 3),
                receive_ms_per_mb=round(link.receive_ms_per_mb, 3),
            )
        providers.append(provider)
    named = with_keys_named(cluster)
    requester = named.requester
    if not requester.fixed_ms:
        requester = replace(requester, fixed_ms=round(1e3 * measure_message_s(), 4))
    return replace(named, providers=tuple(providers), requester=requester)


def _heading(model: Path) -> str:
    when = time.strftime("%Y-%m-%d %H:%M")
    return f"Measured on {when} with {model.name} by `fab profile`, which writes this file anew each time."


def _shelf(digests: dict[str, str]) -> str:
    """A folder of its own for each state of a model, under `models/` on the host."""
    return "models/" + hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()[:16]


def _model_files(model: Path) -> list[Path]:
    """The model and the files in which it keeps its weights."""
    import onnx

    try:
        loaded = onnx.load(model, load_external_data=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{model}: cannot be read: {error}; check the path") from None
    except Exception:  # protobuf's own, which has no common base
        raise ModelError(f"{model}: is no ONNX model; check the file") from None
    places = {
        entry.value
        for tensor in loaded.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files = [model.parent / place for place in sorted(places)]
    for file in files:
        if file.parent.resolve() != model.parent.resolve() or not file.is_file():
            raise ModelError(
                f"{model}: its weights are to be in {file}, which is not beside it; put it there"
            )
    return [model, *files]
