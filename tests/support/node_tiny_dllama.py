"""A tiny random Qwen3-MoE in distributed-llama's two files, for tests of that engine."""

import struct
from pathlib import Path

import gguf
import numpy as np

MERGES = (b"th", b"he", b"an", b" t", b" th", b" the", b"in", b" a", b" an", b" and")
SPECIAL = (b"<|endoftext|>", b"<|im_start|>")


def write_tokenizer(path: Path, *, add_bos: bool = False) -> Path:
    """Write a .t file: 256 bytes, some merges, two special tokens."""
    pieces = [bytes([byte]) for byte in range(256)] + list(MERGES)
    bos = len(pieces)
    pieces += list(SPECIAL)
    pieces += [b"<|unused%d|>" % n for n in range(320 - len(pieces))]
    pairs = {0: 1, 1: len(pieces), 2: max(map(len, pieces)), 3: bos, 9: 1, 10: int(add_bos)}
    header = b"".join(struct.pack("<ii", *pair) for pair in pairs.items())
    body = struct.pack("<ii", 0x567124, 8 + len(header)) + header + struct.pack("<i", bos)
    for token, piece in enumerate(pieces):
        body += struct.pack("<fI", -float(max(token - 255, 0)), len(piece)) + piece
    path.write_bytes(body)
    return path


def write_model(path: Path, *, n_layers: int = 2, n_experts: int = 8, seed: int = 3) -> Path:
    """Write a .m file: 4 KV heads, Q40 weights; runs on one, two and four nodes.

    Each token has a successor whose logit stands far above all others, so that the rounding of what nodes send one
    another (it differs with their number) cannot change what is generated.
    """
    rng = np.random.default_rng(seed)
    dim, head, heads, kv_heads, width, vocab = 128, 32, 4, 4, 128, 320
    pairs = {
        0: 1, 1: 0xABCD02, 2: dim, 3: width, 4: n_layers, 5: heads, 6: kv_heads, 7: n_experts, 8: 2, 9: vocab,
        10: 2048, 11: 1, 12: 10000, 13: 2, 19: head, 20: 6, 21: width,
    }  # fmt: skip
    header = b"".join(struct.pack("<ii", *pair) for pair in pairs.items())

    def floats(values: np.ndarray) -> bytes:
        return values.astype("<f4").tobytes()

    def q40(values: np.ndarray) -> bytes:
        return gguf.quants.quantize(values.astype(np.float32), gguf.GGMLQuantizationType.Q4_0).tobytes()

    def small(rows: int, columns: int) -> bytes:
        return q40(0.3 * rng.standard_normal((rows, columns)) / np.sqrt(columns))

    embedding = rng.standard_normal((vocab, dim))
    attention = ((heads * head, dim), (kv_heads * head, dim), (kv_heads * head, dim), (dim, heads * head))
    with path.open("wb") as file:
        file.write(struct.pack("<ii", 0x0A00ABCD, 8 + len(header)) + header)
        file.write(floats(embedding))
        for _ in range(n_layers):
            for shape in attention:
                file.write(small(*shape))
            file.write(floats(0.2 * rng.standard_normal((n_experts, dim))))
            for _expert in range(n_experts):
                file.write(small(width, dim) + small(dim, width) + small(width, dim))
            for size in (head, head, dim, dim):
                file.write(floats(np.ones(size)))
        file.write(floats(np.ones(dim)) + q40(embedding[(np.arange(vocab) * 7 + 33) % vocab]))
    return path
