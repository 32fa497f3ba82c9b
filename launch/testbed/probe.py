"""What measure.py runs on the hosts: plain sockets and plain loops. A script that imports nothing of ours.

`probe.py serve ADDRESS` prints a port and answers each message with one byte. `probe.py send ADDRESS PORT
BYTES COUNT` prints the seconds from each message's first byte to its answer. `probe.py spin SECONDS` prints
the CPU time got per second, and the shortest, median and longest wall time of equal pieces of work, of about
2 ms of CPU time each.
"""

import socket
import sys
import threading
import time

CHUNK = bytes(1 << 18)


def serve(address):
    server = socket.create_server((address, 0))
    print(server.getsockname()[1], flush=True)
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = bytearray(1 << 18)
    with connection:
        while header := connection.recv(8, socket.MSG_WAITALL):
            left = int.from_bytes(header, "big")
            while left:
                left -= connection.recv_into(buffer, min(left, len(buffer)))
            connection.sendall(b".")


def send(address, port, size, count):
    connection = socket.create_connection((address, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(count):
        began = time.perf_counter()
        connection.sendall(size.to_bytes(8, "big") + CHUNK[: min(size, len(CHUNK))])
        left = size - min(size, len(CHUNK))
        while left:
            left -= connection.send(memoryview(CHUNK)[: min(left, len(CHUNK))])
        connection.recv(1)
        print(f"{time.perf_counter() - began:.6f}")


def spin(seconds):
    def piece(turns):
        for _ in range(turns):
            pass

    turns, took = 1000, 0.0
    while took < 0.002:  # in CPU time, so that the quota does not count
        turns = int(turns * 1.5)
        began = time.process_time()
        piece(turns)
        took = time.process_time() - began
    walls, cpu, began = [], time.process_time(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        at = time.perf_counter()
        piece(turns)
        walls.append(time.perf_counter() - at)
    share = (time.process_time() - cpu) / (time.perf_counter() - began)
    walls.sort()
    print(f"{share:.4f} {walls[0]:.6f} {walls[len(walls) // 2]:.6f} {walls[-1]:.6f}")


if __name__ == "__main__":
    arguments = [int(word) if word.isdigit() else word for word in sys.argv[2:]]
    {"serve": serve, "send": send, "spin": spin}[sys.argv[1]](*arguments)
