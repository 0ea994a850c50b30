"""JSON Schemas of result files and specs, for editors and for those without this software (docs/schemas/)."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.run.records import RunInput
from orchestrator.results.schema import BenchmarkFile, CampaignFile, EpiFile
from shared.files.atomic import write_files

MODELS: dict[str, type[BaseModel]] = {
    "campaign": CampaignFile, "run": RunInput, "benchmark": BenchmarkFile, "epi": EpiFile,
    "spec": CampaignSpec,
}  # fmt: skip


def schema_of(name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one kind of file: of results as they are written, of a spec as it is read."""
    schema = MODELS[name].model_json_schema(mode="validation" if name == "spec" else "serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def write_schemas(folder: Path) -> tuple[Path, ...]:
    """Write one schema file per kind."""
    texts = {name: f"{json.dumps(schema_of(name), indent=2, ensure_ascii=False)}\n" for name in MODELS}
    return write_files({folder / f"{name}.schema.json": text.encode() for name, text in texts.items()})
