"""Keeps one peer: starts it, writes its log in turns, passes signals on, removes the pid file in the end.

`python -I keeper.py RUN_FILE LOG_FILE NAME=VALUE ... -- PROGRAM ARGUMENT ...` is a session of its own; what
NAME=VALUE says is added to the environment. RUN_FILE holds process id and start time, as JSON. When the
keeper is killed, the kernel kills the peer.
"""

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time

LOG_BYTES, LOG_FILES = 1_000_000, 3
STOP_S = 8.0
_PR_SET_PDEATHSIG = 1


def start_time(pid):
    """When a process started, in clock ticks since boot: with the id, it names a process for good."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


class Log:
    """A file that starts afresh when it is full; the last ones are kept as FILE.1, FILE.2 ..."""

    def __init__(self, path):
        self.path = path
        self.file = open(path, "ab")  # noqa: SIM115

    def write(self, data):
        if self.file.tell() + len(data) > LOG_BYTES:
            self.file.close()
            for number in range(LOG_FILES - 1, 0, -1):
                older = f"{self.path}.{number}"
                newer = f"{self.path}.{number - 1}" if number > 1 else self.path
                if os.path.exists(newer):
                    os.replace(newer, older)
            self.file = open(self.path, "ab")  # noqa: SIM115
        self.file.write(data)
        self.file.flush()

    def say(self, text):
        self.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} keeper: {text}\n".encode())


def die_with_parent(parent):
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main(run_file, log_file, words):
    split = words.index("--")
    environment = {**os.environ, **dict(word.split("=", 1) for word in words[:split])}
    program = words[split + 1 :]
    log, own = Log(log_file), os.getpid()
    log.say(f"starting {' '.join(program)}")
    # signals become bytes in a pipe, so that one loop sees all that happens
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    peer = subprocess.Popen(
        program,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: die_with_parent(own),
    )
    place = os.path.realpath(os.path.dirname(os.path.dirname(program[0])))
    about = {
        "pid": own,
        "start": start_time(own),
        "peer": peer.pid,
        "since_s": time.time(),
        "release": os.path.basename(place),
        "port": int(environment.get("DISTREDGE_PORT", 0)),
    }
    temporary = f"{run_file}.new"
    with open(temporary, "w") as file:
        json.dump(about, file)
    os.replace(temporary, run_file)
    selector = selectors.DefaultSelector()
    selector.register(peer.stdout, selectors.EVENT_READ)
    selector.register(reader, selectors.EVENT_READ)
    kill_at = None
    while peer.poll() is None:
        wait = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        for key, _ in selector.select(wait):
            if key.fd == reader:
                signals = os.read(reader, 64)
                if kill_at is None and any(s in signals for s in (signal.SIGTERM, signal.SIGINT)):
                    log.say("stopping")
                    peer.terminate()
                    kill_at = time.monotonic() + STOP_S
            elif data := os.read(key.fd, 1 << 16):
                log.write(data)
            else:
                selector.unregister(peer.stdout)
        if kill_at is not None and time.monotonic() >= kill_at:
            log.say(f"it did not end within {STOP_S:g} s: killing it")
            peer.kill()
            kill_at += STOP_S
    while data := os.read(peer.stdout.fileno(), 1 << 16):
        log.write(data)
    how = f"signal {-peer.returncode}" if peer.returncode < 0 else f"exit code {peer.returncode}"
    log.say(f"ended by {how}")
    os.remove(run_file)
    return 0 if peer.returncode in (0, -signal.SIGTERM, -signal.SIGINT) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
