"""Pack EPI Factory as it lies in this checkout into one archive, named by what is in it (standard library only).

`python build_release.py CHECKOUT CACHE` prints JSON: id, path, and whether it was built now. The same content gives
the same bytes and the same id on every controller, so a second run of the playbook has nothing to do.
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

PACKAGES = ("shared", "node_agent", "meter_bridge", "surgeon", "orchestrator")
FILES = ("pyproject.toml", "README.md", "LICENSE")
WEB = Path("orchestrator/web")
UNWANTED = {"__pycache__", "node_modules"}


def files_of(root: Path) -> list[Path]:
    """Return every file of a release, relative to `root`, sorted."""
    found = [Path(name) for name in FILES]
    found += [path.relative_to(root) for path in (root / "requirements").glob("*.txt")]
    for package in PACKAGES:
        found += [
            path.relative_to(root)
            for path in (root / package).rglob("*")
            if path.is_file() and not UNWANTED & set(path.relative_to(root).parts)
        ]
    return sorted(found + dashboard_packages(root))


def dashboard_packages(root: Path) -> list[Path]:
    """Return the files of the npm packages that the dashboard serves (not those that only its tests need).

    Raises:
        SystemExit: they are not installed in this checkout.
    """
    found: list[Path] = []
    for name in json.loads((root / WEB / "package.json").read_text())["dependencies"]:
        folder = root / WEB / "node_modules" / name
        if not folder.is_dir():
            sys.exit(f"error: the dashboard's package {name} is missing in {folder}\n  do:    make web")
        found += [path.relative_to(root) for path in folder.rglob("*") if path.is_file()]
    return found


def pack(root: Path) -> bytes:
    """Return the uncompressed archive: fixed times, owners and order, so that equal content gives equal bytes."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in files_of(root):
            body = (root / path).read_bytes()
            entry = tarfile.TarInfo(f"epi-factory/{path.as_posix()}")
            entry.size, entry.mtime, entry.mode = len(body), 315532800, 0o644
            archive.addfile(entry, io.BytesIO(body))
    return raw.getvalue()


def main(root: Path, cache: Path) -> None:
    """Pack, and keep the archive in `cache` unless it is there already."""
    body = pack(root)
    release = hashlib.sha256(body).hexdigest()[:16]
    target = cache / "releases" / f"epi-factory-{release}.tar.gz"
    built = not target.exists()
    if built:
        target.parent.mkdir(parents=True, exist_ok=True)
        half = target.with_suffix(".part")
        half.write_bytes(gzip.compress(body, compresslevel=6, mtime=0))
        half.replace(target)
    print(json.dumps({"id": release, "path": str(target), "built": built}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).expanduser())
