"""A lab's CA and a server certificate from it, made with openssl as `docs/operations.md` says; and a stranger's CA."""

import shutil
import subprocess
from pathlib import Path


def make_certificates(folder: Path) -> None:
    """Make `ca.pem`, `stranger.pem` and, signed by the former for 127.0.0.1, `server.pem` with `server.key`."""
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "stranger"):
        _openssl(
            "req", "-x509", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj",
            f"/CN=epi {name}", "-addext", "keyUsage=critical,keyCertSign", cwd=folder,
        )  # fmt: skip
    _openssl("req", *new_key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=meter", cwd=folder)
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    _openssl(
        "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
        "-extfile", "ext", "-out", "server.pem", cwd=folder,
    )  # fmt: skip


def _openssl(*arguments: str, cwd: Path) -> None:
    assert shutil.which("openssl"), "openssl is needed; do: sudo apt-get install -y openssl"
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True, timeout=60)
