"""Sizes of the contexts that this lab's engine makes: what its process and those who calculate its memory both use."""

BATCH_TOKENS = 512
"""Most tokens evaluated at once."""
_LOGIT_BYTES = 64 << 20


def batch_tokens(context_tokens: int) -> int:
    """Return the most tokens of one batch."""
    return min(BATCH_TOKENS, context_tokens)


def most_outputs(n_vocab: int, sequences: int) -> int:
    """Return the most tokens of one batch whose logits are kept: what bounds the logits' memory."""
    return max(sequences, min(BATCH_TOKENS, _LOGIT_BYTES // (4 * n_vocab)))
