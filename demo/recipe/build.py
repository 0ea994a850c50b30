"""Build everything that is text: tokenizer, packed training tokens, tasks and samples.

Run it with `python -m demo.recipe.build --work-dir build/demo --tokens 9000000`.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from demo.recipe.corpus import documents
from demo.recipe.tokenizer import end_id, train_tokenizer

CORPUS_SEED = 1
TOKENIZER_SEED = 2
BATCH = 4000


def pack(tokenizer: Tokenizer, seed: int, tokens: int) -> tuple[NDArray[np.uint16], NDArray[np.float16]]:
    """Return token ids [tokens] and loss weights [tokens] of documents laid end to end."""
    end = end_id(tokenizer)
    ids: list[int] = []
    weights: list[float] = []
    stream = documents(seed)
    while len(ids) < tokens:
        batch = list(islice(stream, BATCH))
        encoded = iter(tokenizer.encode_batch([text for document in batch for text, _ in document]))
        for document in batch:
            for _, weight in document:
                piece = next(encoded).ids
                ids += piece
                weights += [weight] * len(piece)
            ids.append(end)
            weights.append(1.0)
    return np.array(ids[:tokens], np.uint16), np.array(weights[:tokens], np.float16)


def main() -> None:
    """Write tokenizer.json and corpus.npz into the work folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Path("build/demo"))
    parser.add_argument("--tokens", type=int, default=9_000_000)
    args = parser.parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(TOKENIZER_SEED)
    tokenizer.save(str(args.work_dir / "tokenizer.json"))
    ids, weights = pack(tokenizer, CORPUS_SEED, args.tokens)
    np.savez(args.work_dir / "corpus.npz", ids=ids, weights=weights)
    print(f"{len(ids)} tokens, vocabulary {tokenizer.get_vocab_size()}")


if __name__ == "__main__":
    main()
