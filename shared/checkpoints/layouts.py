"""In which layouts an architecture can be cut, by llama.cpp's or Hugging Face's name of it."""

from shared.kernel.records import Layout

BIASED_ARCHITECTURES = frozenset({"qwen3moe", "Qwen3MoeForCausalLM"})
"""Whose graph llama.cpp also has with a selection bias (docs/formats.md)."""


def layouts_of(architecture: str) -> tuple[Layout, ...]:
    """Return the layouts."""
    return ("uniform", "biased") if architecture in BIASED_ARCHITECTURES else ("uniform",)
