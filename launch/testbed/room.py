"""A host's own file system and name. Run as a script, it is the process that keeps them alive.

`python -I -S room.py FOLDER HOME NAME [hidden folder ...]` gives itself a mount namespace in which

- `/tmp`, `/var/tmp` and `/run` are the host's own,
- the home folder of root is HOME, the same path on every host, with the host's own content,
- `/etc/hosts` knows all hosts of the testbed, `/etc/passwd` the home folder,
- units for systemd land nowhere,
- hidden folders are empty.

It leaves a child that waits to be ended, writes the child's process id to standard output, and ends. FOLDER
holds what the testbed prepared: `tmp`, `home`, `run`, `empty`, `etc`; and the file `disk_mb` if the home
folder is to be that small.
"""

import ctypes
import os
import signal
import sys

_CLONE_NEWNS, _CLONE_NEWUTS = 0x00020000, 0x04000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000


def main(folder, home, name, hidden):
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result, what):
        if result:
            code = ctypes.get_errno()
            raise OSError(code, f"{what}: {os.strerror(code)}")

    def mount(source, target, kind=None, flags=0, data=None):
        words = [None if word is None else word.encode() for word in (source, target, kind, data)]
        check(libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), f"mount on {target}")

    check(libc.unshare(_CLONE_NEWNS | _CLONE_NEWUTS), "unshare")
    check(libc.sethostname(name.encode(), len(name.encode())), "sethostname")
    mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    # A checkout or an interpreter under /tmp would vanish with it.
    code = os.path.abspath(__file__)
    for _ in range(3):
        code = os.path.dirname(code)
    kept = {}
    for path in (os.path.dirname(os.path.dirname(sys.executable)), code):
        if path.startswith(("/tmp/", "/var/tmp/", "/run/")) and os.path.isdir(path):
            kept[path] = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    size = f"{folder}/disk_mb"
    if os.path.exists(size):
        with open(size) as file:
            mount("tmpfs", home, "tmpfs", 0, f"size={int(file.read())}m,mode=700")
    else:
        mount(f"{folder}/home", home, None, _MS_BIND)
    for own, path in (("tmp", "/var/tmp"), ("tmp", "/tmp"), ("run", "/run")):
        mount(f"{folder}/{own}", path, None, _MS_BIND)
    for path, opened in kept.items():
        os.makedirs(path, exist_ok=True)
        mount(f"/proc/self/fd/{opened}", path, None, _MS_BIND)
    for path in hidden:
        if os.path.isdir(path):
            mount(f"{folder}/empty", path, None, _MS_BIND)
    for file in ("hosts", "passwd"):
        mount(f"{folder}/etc/{file}", f"/etc/{file}", None, _MS_BIND)
    if os.path.isdir("/etc/systemd/system"):
        mount(f"{folder}/empty", "/etc/systemd/system", None, _MS_BIND)
    child = os.fork()
    if child:
        print(child, flush=True)
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    while True:
        signal.pause()


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
    except OSError as error:
        print(f"room: {error.strerror}", file=sys.stderr)
        sys.exit(1)
