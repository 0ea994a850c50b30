"""What is said of an engine before anything runs: its tag, what it can do, what bounds it, which files it loads.

Orchestrator and nodes read the same record. Not here: how an engine is run (node_agent.engines).
"""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from shared.kernel.records import EngineName, Layout, Record

_OTHER_TAGS = re.compile(r"[nk][0-9]+\Z|b?f[0-9]+\Z")
"""Numbers of nodes, active experts, and quantisations: what else a tag of a configuration's id can be."""


class EngineDescription(Record):
    """One engine. The defaults are those of an engine that can do everything with any GGUF file."""

    name: EngineName
    tag: str = Field(pattern=r"^[a-z][a-z0-9]{0,15}$", description="the engine in a configuration's id")
    score: bool = Field(default=True, description="reads log-probabilities; else llama.cpp scores the same weights")
    generate: bool = Field(default=True, description="writes texts that may be judged")
    tokenise: bool = True
    distributed: bool = Field(default=True, description="one model over several nodes")
    overrides_experts_per_token: bool = Field(default=True, description="takes another K without another file")
    layouts: tuple[Layout, ...] = Field(default=("uniform", "biased"), description="surgery that it can run")
    requests_per_workload: int | None = Field(default=None, ge=1, description="null: any number")
    quantizations: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="weights that it runs, the usual first; null: any"
    )
    powers_of_two: bool = Field(default=False, description="runs on 1, 2, 4, ... nodes only")
    up_to_kv_heads: bool = Field(default=False, description="on at most as many nodes as the model has KV heads")
    root_has_worker: bool = Field(default=True, description="the root lends its memory by a worker of its own too")
    model_format: Literal["gguf", "dllama"] = Field(default="gguf", description="what the surgeon makes for it")
    tokenizer_format: Literal["dllama_tokenizer"] | None = Field(
        default=None, description="a file of its own for the tokenizer; null: it is in the model's"
    )

    @model_validator(mode="after")
    def _tag_is_its_own(self) -> Self:
        if _OTHER_TAGS.match(self.tag):
            raise ValueError(f"tag {self.tag!r} means something else in a configuration's id")
        return self

    def quantization_for(self, usual: str) -> str:
        """Return the weights that a configuration on this engine has unless it says otherwise."""
        return usual if self.runs_quantization(usual) or not self.quantizations else self.quantizations[0]

    def runs_quantization(self, quantization: str) -> bool:
        """Tell whether it runs such weights."""
        return self.quantizations is None or quantization in self.quantizations

    def most_nodes(self, n_nodes: int, n_kv_heads: int | None = None) -> int:
        """Return the largest number of nodes up to `n_nodes` that it runs on; `n_kv_heads` of the model, if known."""
        most = n_nodes if self.distributed else 1
        if self.up_to_kv_heads and n_kv_heads is not None:
            most = min(most, n_kv_heads)
        return 1 << (most.bit_length() - 1) if self.powers_of_two else most

    def refuses_nodes(self, n_nodes: int, n_kv_heads: int | None = None) -> str:
        """Say why it cannot run on so many nodes; "" where it can."""
        if n_nodes == self.most_nodes(n_nodes, n_kv_heads):
            return ""
        if not self.distributed:
            return f"{self.name} runs on one node, not on {n_nodes}"
        if n_nodes != self.most_nodes(n_nodes):
            return f"{self.name} runs on 1, 2, 4, ... nodes, not on {n_nodes}"
        return f"{self.name} runs this model on at most {n_kv_heads} nodes, its KV heads, not on {n_nodes}"
