"""Deploying to hosts that have SSH and Python, and nothing else: no internet, no compiler, no pip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distredge.cluster.hosts import Cluster, Provider
from distredge.cluster.keys import REQUESTER
from distredge.errors import LaunchError
from launch import keys
from launch.fleet import Host, Outcome, Say, on_all, progress
from launch.session import HostSession, program
from launch.wheels import Platform, Release, collect, own_wheel

# installed files are about four times the size of their wheels
_ROOM = 5
_ALLOWED = "keys/allowed"
_GPU = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
# Which execution providers open a session here: asked of a model with one addition, since a list of what the
# library was built with says nothing about what the machine has.
CHECK_ENGINE = """
import json, sys
import onnx
import onnxruntime as rt
from onnx import TensorProto, helper
x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy")
graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [x], [y])
made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
model = made.SerializeToString()
options = rt.SessionOptions()
options.log_severity_level = 4
usable = []
for name in json.loads(sys.argv[1]) or rt.get_available_providers():
    if name == "AzureExecutionProvider":
        continue  # computes elsewhere
    try:
        session = rt.InferenceSession(model, options, providers=[name])
        if name in session.get_providers():
            usable.append(name)
    except Exception:
        pass
print(json.dumps({"usable": usable, "version": rt.__version__}))
"""


def deploy(cluster: Cluster) -> list[Outcome]:
    """Brings every host to this version. What is there already is not sent again.

    A deployment that broke off is completed by the next one; one that fails for a reason of the host's own
    leaves what was there before.
    """
    own_key = keys.controller_key(cluster)
    own = own_wheel(progress)
    sent: dict[str, dict[str, str]] = {}

    def install(session: HostSession, host: Host, say: Say) -> list[Outcome]:
        facts = session.ask("facts")
        release = _release(host, facts, own, say)
        changed = _install(session, facts, release, say)
        public = session.ask("python_run", code=keys.MAKE_KEYS, arguments=[host.first.deploy_dir])
        for provider in host.providers:
            keys.remember_key(cluster, provider.name, public)
        sent[key_name(host)] = allowed = {**keys.known_keys(cluster), REQUESTER: own_key}
        files = {**_key_files(allowed), "bin/keeper.py": [program("keeper.py"), 0o600]}
        changed = bool(session.ask("write_files", files=files, only_in=_ALLOWED)) or changed
        engine = _check_engine(session, host, changed)
        return [_outcome(provider, facts, release, engine, changed) for provider in host.providers]

    outcomes = on_all(cluster, "deploy", install, lock=True)

    # keys that came after a host had been told
    allowed = {**keys.known_keys(cluster), REQUESTER: own_key}
    late = {name for name, told in sent.items() if told != allowed}

    def introduce(session: HostSession, host: Host, say: Say) -> list[Outcome]:
        session.ask("write_files", files=_key_files(allowed), only_in=_ALLOWED)
        return []

    failed = on_all(cluster, "deploy", introduce, lock=True, only=lambda host: key_name(host) in late)
    reasons = {outcome.name: outcome for outcome in failed}
    return [reasons.get(outcome.name, outcome) for outcome in outcomes]


def _key_files(certificates: dict[str, str]) -> dict[str, list[object]]:
    return {f"{_ALLOWED}/{name}.key": [text, 0o600] for name, text in certificates.items()}


def undeploy(cluster: Cluster) -> list[Outcome]:
    """Stops all peers and removes everything that deploying has brought."""

    def operation(session: HostSession, host: Host, say: Say) -> list[Outcome]:
        was_there = session.ask("undeploy")
        text = "removed" if was_there else "nothing was deployed"
        return [Outcome(provider.name, True, text) for provider in host.providers]

    outcomes = on_all(cluster, "undeploy", operation, lock=False)
    for outcome in outcomes:
        if outcome.ok:
            keys.forget_key(cluster, outcome.name)
    return outcomes


def key_name(host: Host) -> str:
    """What a host's certificate is called: its first provider."""
    return host.first.name


def choose_engine(provider: Provider, facts: dict[str, Any]) -> tuple[str, str]:
    """The distribution of onnxruntime for a host, and a remark if it is not what its hardware would like.

    There is no public GPU wheel for aarch64: a Jetson's comes from `wheels_dir`, or the CPU is used.
    """
    named = provider.execution_providers
    wants_gpu = any(name in _GPU for name in named) if named else bool(facts["gpu"])
    if not wants_gpu:
        return "onnxruntime", ""
    if facts["machine"] == "x86_64":
        return "onnxruntime-gpu", ""
    if provider.wheels_dir:
        return "onnxruntime", ""  # a fitting wheel in wheels_dir comes first anyway
    return (
        "onnxruntime",
        "CPU only: put the board's onnxruntime wheel into a folder and name it as wheels_dir",
    )


def _release(host: Host, facts: dict[str, Any], own: Path, say: Say) -> Release:
    if not facts["glibc"]:
        raise LaunchError("its C library is not glibc, for which the wheels are made; use another system")
    platform = Platform(facts["machine"], ".".join(facts["python"].split(".")[:2]), facts["glibc"])
    engine, _ = choose_engine(host.first, facts)
    return collect(platform, engine, host.first.wheels_dir, own, say)


def _install(session: HostSession, facts: dict[str, Any], release: Release, say: Say) -> bool:
    """Whether anything had to be done."""
    if facts["release"] == release.id:
        return False
    needed = release.size_bytes * _ROOM
    if facts["free_bytes"] < needed:
        room = f"{needed / 1e6:.0f} MB are needed and {facts['free_bytes'] / 1e6:.0f} free"
        session.ask("roll_back")
        raise LaunchError(f"disk full: {room} in {facts['folder']}; free some space or set deploy_dir")
    try:
        lacking = session.ask("missing", files=dict(release.digests))
        size = sum(release.files[name].stat().st_size for name in lacking)
        if lacking:
            say(f"sending {len(lacking)} files, {size / 1e6:.1f} MB")
        for name in lacking:
            session.put(release.files[name], release.digests[name])
        say("making its environment")
        wheels = {name: digest for name, digest in release.digests.items() if name != release.installer}
        own_name = release.own.name
        about = {
            "version": release.version,
            "engine": release.engine,
            "wheels": sorted(release.digests.values()),
            "own": own_name,
            "others": sorted(digest for name, digest in release.digests.items() if name != own_name),
        }
        session.ask(
            "build",
            release=release.id,
            wheels=wheels,
            installer=[release.installer, release.digests[release.installer]],
            about=about,
        )
        session.ask("switch", release=release.id)
    except LaunchError as error:
        if "lost the connection" not in str(error):
            session.ask("roll_back")
        raise
    return True


def _check_engine(session: HostSession, host: Host, changed: bool) -> list[str]:
    """Execution providers that open a session; looked for once per deployment."""
    if not changed and (known := session.ask("usable")):
        return list(known)
    named = [name for provider in host.providers for name in provider.execution_providers]
    engine = session.ask("python_run", code=CHECK_ENGINE, arguments=[json.dumps(named)])
    text = json.dumps(engine["usable"])
    session.ask("write_files", files={"usable.json": [text, 0o600]})
    return list(engine["usable"])


def _outcome(
    provider: Provider, facts: dict[str, Any], release: Release, usable: list[str], changed: bool
) -> Outcome:
    short = [name.removesuffix("ExecutionProvider") for name in usable]
    refused = [name for name in provider.execution_providers if name not in usable]
    text = f"deployed {release.version}" if changed else f"unchanged, {release.version}"
    text += f" with {release.engine}: {', '.join(short) or 'nothing'} usable"
    _, remark = choose_engine(provider, facts)
    if refused:
        text += f"; not usable here: {', '.join(refused)}"
    elif remark:
        text += f"; {remark}"
    detail = {"release": release.id, "changed": changed, "usable": usable}
    return Outcome(provider.name, bool(usable) and not refused, text, detail)
