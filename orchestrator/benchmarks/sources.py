"""Where a task's questions lie on this machine. Never the network: what is missing is named, with the cure."""

from orchestrator.benchmarks.data_dir import DataDir
from orchestrator.benchmarks.local_data import Splits, check_data_files, load_data_files, to_dataset
from orchestrator.benchmarks.published import PUBLISHED
from orchestrator.benchmarks.task_files import TaskFile
from shared.errors import NotFoundError


def splits_for(file: TaskFile, data: DataDir) -> Splits:
    """Return the documents of each split of a task.

    Args:
        file: The task.
        data: Where the published benchmarks lie, for lm-eval's own tasks.

    Raises:
        NotFoundError: the questions are not on this machine.
        DataError: a file is damaged.
        ConfigurationError: the task's YAML names its files in another way than split -> file.
    """
    kwargs = file.config.get("dataset_kwargs") or {}
    if callable(load := file.config.get("custom_dataset")):  # our own YAMLs may bring their loader, as lm-eval allows
        return dict(load(**(file.config.get("metadata") or {}), **kwargs))
    if file.config.get("dataset_path") in {"json", "csv"} and "data_files" in kwargs:
        files = check_data_files(kwargs["data_files"], where=str(file.path))
        return load_data_files(files, file.path.parent)
    for benchmark in PUBLISHED.values():
        if file.config.get("dataset_path") == benchmark.hub:
            subject = file.config.get("dataset_name") if benchmark.name == "mmlu" else None
            return {split: to_dataset(docs) for split, docs in data.splits(benchmark, subject).items()}
    raise NotFoundError(
        f"the questions of {file.config.get('dataset_path')!r} are not on this machine",
        where=file.name,
        hint="give the task's files in its YAML (dataset_path: json, dataset_kwargs.data_files)",
    )
