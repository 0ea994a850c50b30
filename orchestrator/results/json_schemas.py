"""JSON Schemas of the result files, for those who read or write them without this software (docs/schemas/)."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator.domain.run.records import RunInput
from orchestrator.results.schema import BenchmarkFile, CampaignFile, EpiFile
from shared.files.atomic import write_files

MODELS: dict[str, type[BaseModel]] = {
    "campaign": CampaignFile, "run": RunInput, "benchmark": BenchmarkFile, "epi": EpiFile,
}  # fmt: skip


def schema_of(name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one kind of file as it is written."""
    schema = MODELS[name].model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def write_schemas(folder: Path) -> tuple[Path, ...]:
    """Write one schema file per kind."""
    texts = {name: f"{json.dumps(schema_of(name), indent=2, ensure_ascii=False)}\n" for name in MODELS}
    return write_files({folder / f"{name}.schema.json": text.encode() for name, text in texts.items()})
