"""A stand-in for distributed-llama's `dllama`, for machines without the real one: same arguments, lines and defects.

Written from documented facts about commit 8d624a7, not from its code: the real files are read, nodes and KV heads are
checked, workers are connected, handed their part of the file and used for every token; an idle worker dies of a bare
connection; the root dies with any worker; output is block-buffered unless `stdbuf` says otherwise; the last prompt
token is replaced. What it "generates" depends on the tokens only, never on the number of workers.
"""

import contextlib
import hashlib
import itertools
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ACK = 23571114
TOKEN_S = 0.002


class CriticalError(Exception):
    """What ends the program with its one-line message."""


def arguments(words: Sequence[str]) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            options[word] = []
        elif options:
            options[next(reversed(options))].append(word)
    return options


def header(path: str, magic: int) -> tuple[dict[int, int], int, bytes]:
    data = Path(path).read_bytes()
    if struct.unpack_from("<i", data)[0] != magic:
        raise CriticalError("Unsupported magic number")
    size = struct.unpack_from("<i", data, 4)[0]
    numbers = struct.unpack_from(f"<{(size - 8) // 4}i", data, 8)
    return dict(zip(numbers[::2], numbers[1::2], strict=True)), size, data


def encode(path: str, text: bytes) -> list[int]:
    """Bytes first, then always the best-scored pair that is a piece: as slow as it is plain."""
    pairs, at, data = header(path, 0x567124)
    at += 4 * pairs[9]
    vocabulary: list[tuple[float, bytes]] = []
    for _ in range(pairs[1]):
        score, length = struct.unpack_from("<fI", data, at)
        vocabulary.append((score, data[at + 8 : at + 8 + length]))
        at += 8 + length
    regular = {piece: (token, score) for token, (score, piece) in enumerate(vocabulary[: pairs[3]])}
    parts = [bytes([byte]) for byte in text]
    while True:
        pairs_found = [
            (regular[left + right][1], -index)
            for index, (left, right) in enumerate(itertools.pairwise(parts))
            if left + right in regular
        ]
        if not pairs_found:
            return [regular[part][0] for part in parts]
        index = -max(pairs_found)[1]
        parts[index : index + 2] = [parts[index] + parts[index + 1]]


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise CriticalError("Socket closed")
        data += chunk
    return data


def number(connection: socket.socket) -> int:
    return int(struct.unpack("<I", receive(connection, 4))[0])


def send_number(connection: socket.socket, value: int) -> None:
    connection.sendall(struct.pack("<I", value))


class Cluster:
    """The root's connections to its workers."""

    def __init__(self, workers: list[str]) -> None:
        self.sockets: list[socket.socket] = []
        for index, worker in enumerate(workers):
            print(f"⭕ Socket[{index}]: connecting to {worker} worker")
            host, _, port = worker.rpartition(":")
            try:
                connection = socket.create_connection((host, int(port)))
            except OSError as error:
                print(f"Cannot connect to {worker} ({error.strerror})")
                raise CriticalError("Cannot connect") from error
            self.sockets.append(connection)
            send_number(connection, len(workers))
            send_number(connection, index)
            for other in workers[:index] + workers[index + 1 :]:
                name, _, other_port = other.rpartition(":")
                send_number(connection, len(name) + 1)
                connection.sendall(name.encode() + b"\0" + struct.pack("<i", int(other_port)))
            if number(connection) != ACK:
                raise CriticalError("Invalid ack packet")
        for connection in self.sockets:
            send_number(connection, ACK)
        if workers:
            print("⭕ Network is initialized")

    def load(self, weights: bytes) -> None:
        part = len(weights) // (len(self.sockets) + 1)
        for index, connection in enumerate(self.sockets, start=1):
            send_number(connection, part)
            connection.sendall(weights[index * part : (index + 1) * part])
            if number(connection) != ACK:
                raise CriticalError("Invalid ack packet")

    def forward(self, position: int, batch: int) -> None:
        for connection in self.sockets:
            connection.sendall(struct.pack("<II", position, batch))
        if batch:
            time.sleep(TOKEN_S / (len(self.sockets) + 1))
            for connection in self.sockets:
                number(connection)


def inference(options: dict[str, list[str]]) -> None:
    pairs, size, data = header(options["--model"][0], 0x0A00ABCD)
    workers = options.get("--workers", [])
    if len(workers) + 1 > pairs[6]:
        raise CriticalError("This version does not support more nodes than the number of KV heads in the model")
    if pairs[13] == 2 and options.get("--buffer-float-type") != ["q80"]:
        raise CriticalError("This version supports only Q40 weights with Q80 sync type")
    prompt, steps = options["--prompt"][0], int(options["--steps"][0])
    tokens = encode(options["--tokenizer"][0], prompt.encode())
    cluster = Cluster(workers)
    print("💿 Loading weights...")
    cluster.load(data[size:])
    print("💿 Weights loaded")
    if len(tokens) > steps:
        raise CriticalError("The number of prompt tokens is greater than the number of steps")
    print(prompt)
    position = 0
    while (batch := min(32, len(tokens) - 1 - position)) > 0:
        cluster.forward(position, batch)
        position += batch
        print(f"🔷️ Eval{batch * 2:5} ms Sync{0:5} ms | Sent{1:6} kB Recv{1:6} kB | ({batch} tokens)")
    sys.stdout.flush()
    state = hashlib.sha256(bytes(str(tokens[:-1]), "ascii"))  # the defect: the last token is not what counts
    end = min(steps, pairs[10], int(options["--max-seq-len"][0]))
    first = position
    for position in range(first, end):
        cluster.forward(position, 1)
        state.update(b"next")
        piece = ("~", "and", "\n", " the", "x")[state.digest()[0] % 5]
        print(f"🔶 Pred{2:5} ms Sync{0:5} ms | Sent{1:6} kB Recv{1:6} kB | {piece}", flush=True)
    print(f"\nEvaluation\n   nBatches: 32\n    nTokens: {len(tokens) - 1}\n   tokens/s: 1.00 (1.00 ms/tok)")
    print(f"Prediction\n    nTokens: {end - first}\n   tokens/s: 1.00 (1.00 ms/tok)")
    cluster.forward(0, 0)


def serve_once(options: dict[str, list[str]]) -> None:
    """Serve one root: from its connection to its stop signal."""
    address = options["--host"][0], int(options["--port"][0])
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(address))
        print(f"Listening on {address[0]}:{address[1]}...")
        root = stack.enter_context(listener.accept()[0])
        n_sockets, index = number(root), number(root)
        peers = []
        for _ in range(n_sockets - 1):
            name = receive(root, number(root)).rstrip(b"\0").decode()
            peers.append((name, number(root)))
        send_number(root, ACK)
        if number(root) != ACK:
            raise CriticalError("Invalid ack packet")
        for place, peer in enumerate(peers):
            stack.enter_context(socket.create_connection(peer) if place >= index else listener.accept()[0])
        receive(root, number(root))
        send_number(root, ACK)
        listener.close()
        while True:
            try:
                _, batch = struct.unpack("<II", receive(root, 8))
                if batch == 0:
                    print("🛑 Stop signal")
                    return
                time.sleep(TOKEN_S / (n_sockets + 1))
                send_number(root, batch)
            except (CriticalError, OSError) as error:
                print(f"🚨 Network error: {error}")
                return


def main() -> int:
    if os.environ.get("_STDBUF_O") == "L":
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    mode, options = sys.argv[1], arguments(sys.argv[2:])
    try:
        if mode == "inference":
            inference(options)
        elif mode == "worker":
            while True:
                serve_once(options)
        else:
            raise CriticalError("Unsupported mode")
    except (CriticalError, OSError) as error:
        print(f"🚨 Critical error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
