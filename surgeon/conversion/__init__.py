"""From Hugging Face checkpoints to GGUF and distributed-llama files, and quantisation."""
