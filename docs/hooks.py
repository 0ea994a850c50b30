"""What mkdocs calls while it builds the site: the generated pages join those that are written by hand."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from mkdocs.structure.files import File, Files

from docs.reference import PAGES


def on_files(files: Files, config: Any) -> Files:
    """Add the reference pages."""
    for name, page in PAGES.items():
        files.append(File.generated(config, name, content=page()))
    return files
