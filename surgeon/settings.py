"""Settings of the surgeon's daemon."""

from pathlib import Path

from pydantic import Field

from shared.kernel.errors import NotFoundError
from shared.kernel.records import Record
from shared.kernel.settings import AgentSettings, load_settings
from shared.wire.names import Name


class QuestionFile(Record):
    """Multiple-choice questions for a search by accuracy: JSON lines with question, choices, answer."""

    path: Path = Field(description="JSON lines")
    template: str = Field(default="", description='the prompt, with {question}; empty: "Question: ...\\nAnswer:"')


class SurgeonSettings(AgentSettings):
    """What the surgeon may open; the network names models and corpora, never paths."""

    models: dict[Name, Path] = Field(description="checkpoint directories in Hugging Face format or GGUF files, by name")
    corpora: dict[Name, tuple[Path, ...]] = Field(
        default_factory=dict, description="calibration texts by corpus name; each file is a domain"
    )
    questions: dict[Name, QuestionFile] = Field(default_factory=dict, description="for searches by accuracy, by name")
    sanity_prompts: Path | None = Field(
        default=None, description="prompts that every variant must still answer (JSON lines)"
    )
    heldout_text: Path | None = Field(default=None, description="text whose perplexity is compared with the baseline")
    threads: int = Field(default=1, ge=1, le=4096, description="CPU threads of llama.cpp")
    heldout_tokens: int = Field(
        default=4096, ge=2, le=1_000_000_000, description="tokens of the held-out text that are evaluated"
    )
    window_tokens: int = Field(default=512, ge=8, le=1_000_000, description="tokens evaluated at once while observing")
    artifact_quota_bytes: int | None = Field(
        default=None, ge=1, le=1 << 60, description="room for artifacts; null: the disk's"
    )
    variant_quota_bytes: int = Field(
        default=64 << 30, ge=0, le=1 << 60,
        description="room for variants that nobody pins: their plan makes them again, the least recently used go first",
    )  # fmt: skip

    def model_path(self, name: str) -> Path:
        """Return the path of a model.

        Raises:
            NotFoundError: no such model in the settings.
        """
        if name not in self.models:
            raise NotFoundError("no such model", where=name, hint=f"configured: {', '.join(sorted(self.models))}")
        return self.models[name]

    def question_file(self, name: str) -> tuple[Path, str]:
        """Return a file of questions and its template.

        Raises:
            NotFoundError: no such questions in the settings.
        """
        if name not in self.questions:
            known = ", ".join(sorted(self.questions))
            raise NotFoundError("no such questions", where=name, hint=f"configured: {known}")
        return self.questions[name].path, self.questions[name].template

    def corpus_paths(self, name: str) -> tuple[Path, ...]:
        """Return the texts of a corpus.

        Raises:
            NotFoundError: no such corpus in the settings.
        """
        if name not in self.corpora:
            raise NotFoundError("no such corpus", where=name, hint=f"configured: {', '.join(sorted(self.corpora))}")
        return self.corpora[name]


def load(path: Path) -> SurgeonSettings:
    """Read the settings; relative paths are relative to the file.

    Raises:
        ConfigurationError: unreadable, or a field that does not fit.
    """
    settings = load_settings(SurgeonSettings, path)
    base = path.resolve().parent

    def absolute(value: Path | None) -> Path | None:
        return None if value is None else base / value

    return settings.model_copy(
        update={
            "models": {name: base / value for name, value in settings.models.items()},
            "corpora": {name: tuple(base / value for value in values) for name, values in settings.corpora.items()},
            "questions": {
                name: entry.model_copy(update={"path": base / entry.path}) for name, entry in settings.questions.items()
            },
            "sanity_prompts": absolute(settings.sanity_prompts), "heldout_text": absolute(settings.heldout_text),
            "token_file": absolute(settings.token_file), "state_dir": base / settings.state_dir,
        }
    )  # fmt: skip
