"""What `fab` runs on a host: answers requests on standard input until that ends. Then its lock is free again.

A request is a line of JSON, `{"do": name, ...arguments}`; `put` is followed by the file's bytes. An answer is
a line of JSON, `{"answer": value}` or `{"error": text}`. Everything lies in the deploy folder:

    wheels/SHA256/NAME.whl   files as they were sent; a complete one has its final name
    releases/ID/             a virtual environment; complete when the file `complete` is in it
    current                  -> releases/ID
    bin/keeper.py  run/NAME.json  log/NAME.log  cache/  keys/
"""

import errno
import json
import os
import sys

from launch.remote import facts, peers, store
from launch.remote.basics import Refusal

ACTIONS = {
    action.__name__: action
    for action in (
        facts.facts,
        facts.ports,
        store.lock,
        store.missing,
        store.build,
        store.switch,
        store.roll_back,
        store.write_files,
        store.python_run,
        store.profile,
        store.undeploy,
        peers.start,
        peers.stop,
        peers.status,
        peers.logs,
        peers.usable,
    )
}


def serve(source, target):
    """Answers until the source ends."""
    while line := source.readline():
        request = json.loads(line)
        name = request.pop("do")
        try:
            if name == "put":
                answer = store.put(source, **request)
            else:
                answer = ACTIONS[name](**request)
            reply = {"answer": answer}
        except Refusal as error:
            reply = {"error": str(error)}
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reply = {"error": f"{error.strerror}{where}{'; free some space' if full else ''}"}
        target.write(json.dumps(reply).encode() + b"\n")
        target.flush()


def main():
    source = sys.stdin.buffer
    target = os.fdopen(os.dup(1), "wb")
    # whatever prints must not come between the answers
    os.dup2(2, 1)
    os.umask(0o077)
    serve(source, target)
