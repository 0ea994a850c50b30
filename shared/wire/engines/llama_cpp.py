"""llama.cpp: any GGUF file, layers over RPC workers, log-probabilities; what the lab scores with."""

from shared.wire.engines.base import EngineDescription

ENGINE = EngineDescription(name="llama.cpp", tag="llamacpp")
