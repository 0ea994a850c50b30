"""Where a task's questions lie on this machine. Never the network: what is missing is named, with the cure."""

from pathlib import Path

from orchestrator.benchmarks.data_dir import DataDir, read_folder
from orchestrator.benchmarks.local_data import Splits, check_data_files, load_data_files, to_dataset
from orchestrator.benchmarks.published import PUBLISHED, as_published
from orchestrator.benchmarks.task_files import TaskFile
from orchestrator.domain.run.question_sets import Trust
from shared.kernel.errors import NotFoundError


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
    return _copied_from_the_hub(file, data.root)


def trust_of(file: TaskFile, data: DataDir) -> Trust:
    """Return what is known of the questions of a task whose documents were read."""
    found = [one for one in PUBLISHED.values() if file.config.get("dataset_path") == one.hub]
    return data.trust(found[0]) if found else "own"


def _copied_from_the_hub(file: TaskFile, root: Path) -> Splits:
    """Return the splits of any other lm-eval task, whose files were copied from the Hub as they are.

    For `dataset_path: baber/piqa` they lie in `piqa/` of the data directory, in `piqa/NAME/` if the task has a
    `dataset_name` and that folder exists; each file's name, or its folder's, says its split.
    """
    name = str(file.config.get("dataset_path") or "").rpartition("/")[2]
    folder = root / name / str(file.config.get("dataset_name") or "")
    layout = as_published(name)
    found = read_folder(folder if folder.is_dir() else root / name, layout) if name else {}
    if not found:
        raise NotFoundError(
            f"the questions of {file.config.get('dataset_path')!r} are not on this machine",
            where=file.name,
            hint=f"copy its files (parquet, JSON Lines or CSV, the split in the name) to {root / (name or '...')}",
        )
    return {split: to_dataset(docs) for split, docs in found.items()}
