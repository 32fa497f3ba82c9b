"""The far end of a link that is measured: takes and gives messages over ZeroMQ.

Needs pyzmq, so it runs in the release. Arguments: a token that every message must carry, the address and the
port to listen on. Prints the port and a public key that is made for this once; only encrypted connections are
taken, and the token came over SSH. A message is token, what to do, a number, payload: `take` answers with one
byte, `note` with nothing, `give` with as many bytes as the number says, `clock` with the processor time that
this process has had, `cores` with how many processors so many threads keep busy. Ends with standard input.
"""

import hashlib
import sys
import threading
import time

import zmq

from launch.remote.facts import bind_address

LARGEST = 1 << 26
MOST_THREADS = 1024
BUSY_S = 0.4


def main():
    token, address, port = sys.argv[2].encode(), sys.argv[3], sys.argv[4]
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.MAXMSGSIZE, LARGEST)
    public, secret = zmq.curve_keypair()
    socket.set(zmq.CURVE_SERVER, 1)
    socket.set(zmq.CURVE_SECRETKEY, secret)
    bind = bind_address(address)
    socket.set(zmq.IPV6, ":" in bind)
    bind = f"[{bind}]" if ":" in bind else bind
    socket.bind(f"tcp://{bind}:{port}")
    print(socket.get(zmq.LAST_ENDPOINT).decode().rstrip("\0").rpartition(":")[2], public.decode(), flush=True)
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(0, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if 0 in ready and not sys.stdin.buffer.read1(1024):
            break
        if socket in ready:
            answer(socket, token)
    socket.close()
    context.term()


def answer(socket, token):
    parts = socket.recv_multipart(copy=False)
    if len(parts) != 5 or parts[1].bytes != token:
        return
    sender, what, number = parts[0].bytes, parts[2].bytes, int(parts[3].bytes[:12] or b"0")
    if what == b"take":
        socket.send_multipart([sender, b"."])
    elif what == b"give" and 0 < number <= LARGEST:
        socket.send_multipart([sender, bytes(number)], copy=False)
    elif what == b"clock":
        socket.send_multipart([sender, repr(time.process_time()).encode()])
    elif what == b"cores" and 0 < number <= MOST_THREADS:
        socket.send_multipart([sender, repr(cores(number)).encode()])


def cores(count):
    """Processors that so many threads get together: less than one under a CPU quota."""
    began, before = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=work, args=(began + BUSY_S,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.process_time() - before) / (time.perf_counter() - began)


def work(until):
    data = bytes(1 << 16)
    while time.perf_counter() < until:
        hashlib.sha256(data)  # long enough to let the other threads go on meanwhile
