"""What a host is, and which of its ports are free."""

import contextlib
import errno
import glob
import os
import platform
import shutil
import socket
import sys
import time

from launch.remote.basics import current_release, expand, is_deployed, read_text, release_facts


def facts(folder):
    """All that can be known without deploying."""
    folder = expand(folder)
    existing = folder
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    usage = shutil.disk_usage(existing)
    libc, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    return {
        "hostname": socket.gethostname(),
        "machine": platform.machine(),
        "python": ".".join(str(n) for n in sys.version_info[:3]),
        "glibc": version if libc == "glibc" else "",
        "gpu": find_gpu(),
        "cores": len(os.sched_getaffinity(0)),
        "folder": folder,
        "writable": os.access(existing, os.W_OK),
        "free_bytes": usage.free,
        "time_s": time.time(),
        "deployed": is_deployed(folder),
        "release": current_release(folder),
        "version": release_facts(folder).get("version", ""),
    }


def find_gpu():
    """`jetson`, `nvidia` or nothing. Looks at files alone: a Jetson has no NVML to ask."""
    compatible = read_text("/proc/device-tree/compatible")
    if os.path.exists("/etc/nv_tegra_release") or "nvidia,tegra" in compatible:
        return "jetson"
    if os.path.exists("/proc/driver/nvidia/version") or os.path.exists("/dev/nvidiactl"):
        return "nvidia"
    return ""


def ports(address, numbers):
    """Who holds each of these ports: nothing for a free one."""
    found = {}
    for number in numbers:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((bind_address(address), number))
                found[str(number)] = ""
            except OSError as error:
                holder = port_holder(number) if error.errno == errno.EADDRINUSE else error.strerror
                found[str(number)] = holder or "another process"
    return found


def bind_address(address):
    """The address itself where it is this host's own; else (a name, a translated address) all of them."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            resolved = socket.getaddrinfo(address, 0, family, socket.SOCK_STREAM)[0][4][0]
            probe.bind((resolved, 0))
            return resolved
        except OSError:
            return "::" if family == socket.AF_INET6 else "0.0.0.0"


def port_holder(number):
    """Process id and command of who listens on a port, as far as we may see."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read_text(table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == number:
                inodes.add(f"socket:[{fields[9]}]")
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) in inodes:
                pid = link.split("/")[2]
                return f"process {pid} ({read_text(f'/proc/{pid}/comm').strip()})"
    return ""
