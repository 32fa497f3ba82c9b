"""Units for systemd, so that peers come back after a reboot."""

import os
import shutil
import subprocess

from launch.remote.basics import Refusal

RUNNING = "/run/systemd/system"
"""Exists where systemd runs."""
SYSTEM_UNITS = "/etc/systemd/system"
UNIT = """[Unit]
Description=DistrEdge peer {name}
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={command}
Restart=on-failure
RestartSec=2
KillMode=mixed
TimeoutStopSec=20

[Install]
WantedBy={target}
"""


def unit_file(name):
    folder = SYSTEM_UNITS if os.geteuid() == 0 else os.path.expanduser("~/.config/systemd/user")
    return os.path.join(folder, f"distredge-{name}.service")


def install(name, argv):
    """Starts a peer's keeper now and at every boot."""
    if not os.path.isdir(RUNNING) or shutil.which("systemctl") is None:
        raise Refusal("no systemd runs here, so nothing can be started at boot; leave --boot out")
    path = unit_file(name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    target = "multi-user.target" if os.geteuid() == 0 else "default.target"
    with open(path, "w") as file:
        file.write(UNIT.format(name=name, command=" ".join(map(quoted, argv)), target=target))
    if os.geteuid() != 0:
        _call("loginctl", "enable-linger")
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", os.path.basename(path))


def remove(name):
    """Stops and forgets a peer's unit. Returns whether there was one."""
    path = unit_file(name)
    if not os.path.exists(path):
        return False
    if os.path.isdir(RUNNING):
        _systemctl("disable", "--now", os.path.basename(path))
    os.remove(path)
    if os.path.isdir(RUNNING):
        _systemctl("daemon-reload")
    return True


def quoted(word):
    """One word of a unit's command line, safe from systemd's own expansions."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _systemctl(*words):
    _call("systemctl", *([] if os.geteuid() == 0 else ["--user"]), *words)


def _call(*argv):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Refusal(f"{' '.join(argv)} failed: {said[-1] if said else done.returncode}")
