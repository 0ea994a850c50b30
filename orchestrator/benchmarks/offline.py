"""Makes lm-eval quiet and offline in this process. Call `go_offline` before anything imports lm_eval.

Hugging Face libraries read their switches when they are imported, so the modules here that need lm_eval call this on
their first line. Benchmarks never touch the network: their data are local files (orchestrator.benchmarks.datasets).
"""

import logging
import os

_SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",  # lm-eval shows a bar for every task it builds; the lab shows its own progress
}


def go_offline() -> None:
    """Set the offline switches of this process and raise lm-eval's log level to warnings of consequence."""
    os.environ.update(_SWITCHES)
    for name in ("lm_eval", "datasets", "evaluate"):
        logging.getLogger(name).setLevel(logging.ERROR)
