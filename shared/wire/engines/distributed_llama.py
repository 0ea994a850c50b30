"""distributed-llama at commit 8d624a7: tensor-parallel over Q40 weights, without log-probabilities.

Q40 is ggml's Q4_0 byte for byte (docs/formats.md). Each workload is one request, since it loads the weights at every
start; it replaces the last prompt token, so its texts may not be judged; the root takes part without a worker.
"""

from shared.wire.engines.base import EngineDescription

ENGINE = EngineDescription(
    name="distributed-llama",
    tag="dllama",
    score=False,
    generate=False,
    overrides_experts_per_token=False,
    layouts=("uniform",),
    requests_per_workload=1,
    quantizations=("Q4_0",),
    powers_of_two=True,
    up_to_kv_heads=True,
    root_has_worker=False,
    model_format="dllama",
    tokenizer_format="dllama_tokenizer",
)
