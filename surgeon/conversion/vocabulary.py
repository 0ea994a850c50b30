"""A tokenizer as GGUF metadata, without the transformers library: SentencePiece (tokenizer.model) or byte-level BPE.

llama.cpp names BPE's pre-tokenizers and has their patterns built in, so the pattern in tokenizer.json must be one it
knows. A checkpoint with both files, as Mixtral's, is SentencePiece: its tokenizer.json is made from that.
"""

from pathlib import Path
from typing import Any, Final

import gguf

from shared.checkpoints.safetensors import read_json
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.regular_files import RECORDS_BYTES, require_regular

QWEN2_PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_READ_BY_GGUF: Final = (".json", ".txt", ".model", ".jinja")
_NAMES_BY_PATTERN: Final = {QWEN2_PATTERN: "qwen2"}


def add_vocabulary(writer: gguf.GGUFWriter, folder: Path, vocab_size: int) -> None:
    """Add tokens, types, merges, special tokens and chat template of `folder` to `writer`.

    Raises:
        ConfigurationError: no tokenizer that llama.cpp knows.
        DataError: more tokens than `vocab_size`, two tokens with one id, or a file of the folder that is none.
    """
    _require_files(folder)
    if (folder / "tokenizer.model").exists():
        _add_sentencepiece(writer, folder, vocab_size)
    else:
        _add_bpe(writer, folder, vocab_size)


def _require_files(folder: Path) -> None:
    """Refuse what the gguf library would open by its name and wait for, or read without end."""
    for path in sorted(folder.iterdir()):
        if path.suffix in _READ_BY_GGUF and not path.is_dir():
            try:
                require_regular(path, RECORDS_BYTES)
            except OSError as error:
                raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _add_sentencepiece(writer: gguf.GGUFWriter, folder: Path, vocab_size: int) -> None:
    path = folder / "tokenizer.model"
    try:
        tokens = list(gguf.SentencePieceVocab(folder).all_tokens())
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(f"not a SentencePiece tokenizer: {error}", where=str(path)) from error
    if len(tokens) > vocab_size:
        raise DataError(f"{len(tokens)} tokens with a vocabulary of {vocab_size}", where=str(path))
    for number in range(len(tokens), vocab_size):
        tokens.append((f"[PAD{number}]".encode(), -10_000.0, gguf.TokenType.UNUSED))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token for token, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([kind for _, _, kind in tokens])
    gguf.SpecialVocab(folder, n_vocab=vocab_size).add_to_gguf(writer, quiet=True)


def _add_bpe(writer: gguf.GGUFWriter, folder: Path, vocab_size: int) -> None:
    path = folder / "tokenizer.json"
    tokenizer = read_json(path)
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise ConfigurationError("not a BPE tokenizer", where=str(path))
    tokens: dict[int, tuple[str, gguf.TokenType]] = {}
    for token, number in model["vocab"].items():
        tokens[number] = (token, gguf.TokenType.NORMAL)
    if len(tokens) != len(model["vocab"]):
        raise DataError("two tokens have one id", where=str(path))
    for added in tokenizer.get("added_tokens", []):
        kind = gguf.TokenType.CONTROL if added.get("special") else gguf.TokenType.USER_DEFINED
        tokens[added["id"]] = (added["content"], kind)
    if tokens and (max(tokens) >= vocab_size or min(tokens) < 0):
        raise DataError(f"token id {max(tokens)} with a vocabulary of {vocab_size}", where=str(path))
    listed = [tokens.get(number, (f"[PAD{number}]", gguf.TokenType.UNUSED)) for number in range(vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(tokenizer, path))
    writer.add_token_list([token for token, _ in listed])
    writer.add_token_types([kind for _, kind in listed])
    gguf.SpecialVocab(folder, load_merges=True, n_vocab=vocab_size).add_to_gguf(writer, quiet=True)


def _pre_tokenizer(tokenizer: dict[str, Any], path: Path) -> str:
    pre = tokenizer.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers", [pre])
    patterns = [step.get("pattern", {}).get("Regex", "") for step in steps if step.get("type") == "Split"]
    name = _NAMES_BY_PATTERN.get(patterns[0]) if len(patterns) == 1 else None
    if name is None or not any(step.get("type") == "ByteLevel" for step in steps):
        raise ConfigurationError(
            "the pre-tokenizer is none that is known here", where=str(path),
            hint=f"known: {', '.join(_NAMES_BY_PATTERN.values())}; the pattern must be equal to the letter",
        )  # fmt: skip
    return name
