"""Peers on a host: started so that they outlive the session, found again by pid file, stopped."""

import contextlib
import glob
import json
import os
import signal
import socket
import subprocess
import sys
import time

from launch.remote import boot
from launch.remote.basics import (
    Refusal,
    current_release,
    expand,
    is_deployed,
    own_places,
    read_text,
    release_facts,
)
from launch.remote.facts import bind_address, ports

STOP_S = 12.0


def runs(folder):
    """What the pid files say, of those whose process is really the one that was started."""
    found = {}
    for path in glob.glob(os.path.join(folder, "run", "*.json")):
        with contextlib.suppress(OSError, ValueError, IndexError):
            run = json.loads(read_text(path))
            stat = read_text(f"/proc/{run['pid']}/stat").rpartition(")")[2].split()
            if int(stat[19]) == run["start"] and stat[0] != "Z":
                found[os.path.basename(path)[: -len(".json")]] = run
    return found


def start(folder, peer, environment, at_boot=False, wait_s=30.0):
    """Starts a peer that outlives this agent, and waits until it listens.

    `peer` has name, address, port and arguments (behind `python -m distredge`; `{bind}` and `{folder}` are
    replaced); with `at_boot`, systemd starts it, now and whenever the host boots.
    """
    folder = expand(folder)
    name = peer["name"]
    if name in runs(folder):
        return {"already": True}
    if not current_release(folder):
        raise Refusal("nothing is deployed; run fab deploy")
    holder = ports(peer["address"], [peer["port"]])[str(peer["port"])]
    if holder:
        raise Refusal(f"port {peer['port']} is taken by {holder}; stop it or choose another port")
    for part in ("run", "log"):
        os.makedirs(os.path.join(folder, part), exist_ok=True)
    argv = keeper_command(folder, peer, environment)
    log = os.path.join(folder, "log", f"{name}.log")
    size_before = os.path.getsize(log) if os.path.exists(log) else 0
    if at_boot:
        boot.install(name, argv)
    else:
        nothing = subprocess.DEVNULL
        subprocess.Popen(
            argv, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True, cwd=folder
        )
    deadline = time.monotonic() + wait_s
    seen = False
    while time.monotonic() < deadline:
        alive = name in runs(folder)
        if seen and not alive:
            break
        seen = seen or alive
        if alive and answers(peer["address"], peer["port"]):
            return {"already": False}
        time.sleep(0.05)
    if name in runs(folder):
        stop(folder, name)
        raise Refusal(f"it did not listen on port {peer['port']} within {wait_s:g} s; see fab logs")
    with open(log, errors="replace") as file:
        file.seek(size_before)
        said = [line for line in file.read().splitlines() if line.strip() and " keeper: " not in line]
    boot.remove(name)
    raise Refusal(f"it ended at once: {said[-1] if said else 'it said nothing; see fab logs'}")


def keeper_command(folder, peer, environment):
    name = peer["name"]
    bind = bind_address(peer["address"])
    bind = f"tcp://[{bind}]:{peer['port']}" if ":" in bind else f"tcp://{bind}:{peer['port']}"
    python = os.path.join(folder, "current", "bin", "python")
    environment = {**own_places(folder), **environment, "DISTREDGE_PORT": str(peer["port"])}
    words = [f"{key}={value.replace('{folder}', folder)}" for key, value in environment.items()]
    arguments = [word.replace("{bind}", bind).replace("{folder}", folder) for word in peer["arguments"]]
    return [
        sys.executable,
        "-I",
        os.path.join(folder, "bin", "keeper.py"),
        os.path.join(folder, "run", f"{name}.json"),
        os.path.join(folder, "log", f"{name}.log"),
        *words,
        "--",
        python,
        "-I",
        "-m",
        "distredge",
        *arguments,
    ]


def usable(folder):
    """Execution providers that were found to work when this was deployed."""
    return json.loads(read_text(os.path.join(expand(folder), "usable.json")) or "[]")


def answers(address, port):
    target = bind_address(address)
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(target, target)
    try:
        with socket.create_connection((target, port), timeout=1.0):
            return True
    except OSError:
        return False


def stop(folder, name):
    """Ends exactly the peer that was started under this name. Returns whether one was running."""
    folder = expand(folder)
    was_unit = boot.remove(name)
    run = runs(folder).get(name)
    if run is None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, "run", f"{name}.json"))
        return was_unit
    os.kill(run["pid"], signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while name in runs(folder):
        if time.monotonic() > deadline:
            os.kill(run["pid"], signal.SIGKILL)  # the kernel then ends the peer
            deadline += STOP_S
        time.sleep(0.02)
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(folder, "run", f"{name}.json"))
    return True


def status(folder, address):
    """Every peer that runs here."""
    folder = expand(folder)
    found = {}
    for name, run in runs(folder).items():
        pages = read_text(f"/proc/{run['peer']}/statm").split()
        port = run.get("port", 0)
        found[name] = {
            "pid": run["peer"],
            "since_s": run["since_s"],
            "release": run.get("release", ""),
            "version": release_facts(folder, run.get("release") or "none").get("version", ""),
            "port": port,
            "memory_bytes": int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if pages else 0,
            "answers": answers(address, port),
        }
    return {"peers": found, "release": current_release(folder), "deployed": is_deployed(folder)}


def logs(folder, name, lines):
    """The last lines of a peer's log."""
    path = os.path.join(expand(folder), "log", f"{name}.log")
    older = read_text(f"{path}.1") if os.path.exists(f"{path}.1") else ""
    return (older + read_text(path)).splitlines()[-lines:] if lines else []
