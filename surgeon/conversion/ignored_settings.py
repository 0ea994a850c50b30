"""Settings of a checkpoint that llama.cpp's graph would leave out or do otherwise: refused before conversion."""

from shared.checkpoints.architectures import architecture_named
from shared.checkpoints.safetensors import Checkpoint
from shared.kernel.errors import ConfigurationError
from surgeon.conversion.families import Family


def check_settings(checkpoint: Checkpoint, family: Family) -> None:
    """Refuse what llama.cpp's graph would leave out or do otherwise: the file would run, and be another model.

    Raises:
        ConfigurationError: there is such a setting.
    """
    config, kind = checkpoint.config, checkpoint.architecture
    row = architecture_named(kind)
    assert row is not None
    divides = bool(config.get("norm_topk_prob") or False)
    problem = ""
    if config.get("quantization_config") is not None:
        problem = "quantization_config: it is quantised already; convert the checkpoint that it was made from"
    elif family.says_norm_topk_prob and row.normalises and not divides:
        problem = f"norm_topk_prob is false, but llama.cpp always renormalises for {kind}"
    elif family.says_norm_topk_prob and not row.normalises and divides:
        problem = f"norm_topk_prob is true, but llama.cpp never renormalises for {kind}"
    elif config.get("hidden_act", row.activation) != row.activation:
        problem = f"hidden_act is {config['hidden_act']}, but llama.cpp computes {row.activation} for {kind}"
    elif config.get("use_sliding_window", kind == "MixtralForCausalLM") and config.get("sliding_window"):
        problem = f"sliding_window is {config['sliding_window']}, but llama.cpp attends to everything for {kind}"
    elif config.get("decoder_sparse_step", 1) != 1 or config.get("mlp_only_layers"):
        problem = "some layers are dense: not supported"
    if problem:
        raise ConfigurationError(problem, where=str(checkpoint.path / "config.json"))
