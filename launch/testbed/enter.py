"""Turns the calling process into a program inside a host: CPU group and cores, network, name, file system.

Run as a script, by path, with nothing of this project importable: `python -I -S enter.py [option ...] --
program argument ...`. It replaces itself by the program, so that process id, signals and exit code are the
program's own.
"""

import ctypes
import os
import sys


def main(words):
    split = words.index("--")
    options = dict(word.split("=", 1) for word in words[:split])
    program = words[split + 1 :]
    if "cgroup" in options:
        with open(options["cgroup"] + "/cgroup.procs", "w") as procs:
            procs.write(str(os.getpid()))
    if "cores" in options:
        os.sched_setaffinity(0, {int(core) for core in options["cores"].split(",")})
    if "release" in options:  # a lock that was held until this process can be found by its group
        os.close(int(options["release"]))
    libc = ctypes.CDLL(None, use_errno=True)
    # all are opened first: behind the mount namespace's door these paths may lead elsewhere
    doors = [
        os.open(options[kind], os.O_RDONLY | os.O_CLOEXEC)
        for kind in ("net", "uts", "mnt")
        if kind in options
    ]
    for door in doors:
        if libc.setns(door, 0):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    if "cwd" in options:
        os.chdir(options["cwd"])
    try:
        os.execvp(program[0], program)
    except OSError as error:
        error.filename = program[0]
        raise


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        print(f"enter: {error}", file=sys.stderr)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)
