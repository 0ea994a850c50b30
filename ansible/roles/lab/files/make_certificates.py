"""The lab's certificates: one CA, and a key with a certificate from it for each machine. Runs on the controller.

    echo '{"machines": {"node1": ["node1", "192.168.50.11"]}, "ca_key": null}' | make_certificates.py FOLDER

Written are `ca.pem`, `ca.key` and for each machine `NAME.pem`, `NAME.key`; what is there and still fits stays. A
machine gets a new pair when its names changed, when its certificate comes from another CA, or in its last year.
`ca_key` is the CA's key in clear where the file is encrypted. Answered is the list of what was made. Needs
`cryptography`, which ansible-core brings.
"""

import datetime
import ipaddress
import json
import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

YEAR = datetime.timedelta(days=365)
CA_YEARS = 30
MACHINE_YEARS = 10
# A board without a clock of its own starts in the past: its first connections come before the time is known.
VALID_FROM = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
OTHER_USES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "encipher_only", "decipher_only",
)  # fmt: skip


def main(folder: Path, machines: dict[str, list[str]], ca_key_text: str | None) -> list[str]:
    """Make what is missing in `folder` and return its names."""
    made = []
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca_file, ca_key_file = folder / "ca.pem", folder / "ca.key"
    ca_key = None
    if ca_file.exists():
        ca = x509.load_pem_x509_certificate(ca_file.read_bytes())
    else:
        if ca_key_file.exists():
            sys.exit(f"{ca_file} is missing beside its key: bring it back, or remove the key to make a new CA")
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca = ca_certificate(ca_key)
        write(ca_key_file, private(ca_key), 0o600)
        write(ca_file, public(ca), 0o644)
        made.append("ca")
    for name, names in machines.items():
        if fits(folder / f"{name}.pem", folder / f"{name}.key", ca, names):
            continue
        ca_key = ca_key or load_key(ca_key_text, ca_key_file)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = machine_certificate(name, names, key, ca, ca_key)
        write(folder / f"{name}.key", private(key), 0o600)
        write(folder / f"{name}.pem", public(certificate), 0o644)
        made.append(name)
    return made


def ca_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Return the CA's own certificate: it signs machines, nothing else."""
    name = common_name("EPI Factory lab CA")
    usage = x509.KeyUsage(key_cert_sign=True, crl_sign=True, **dict.fromkeys(OTHER_USES, False))
    return (
        begun(name, name, key.public_key(), CA_YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def machine_certificate(
    name: str, names: list[str], key: ec.EllipticCurvePrivateKey, ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:  # fmt: skip
    """Return the certificate of a machine's services."""
    issuer = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        begun(common_name(name), ca.subject, key.public_key(), MACHINE_YEARS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([general_name(one) for one in names]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def begun(whose: x509.Name, by: x509.Name, key: ec.EllipticCurvePublicKey, years: int) -> x509.CertificateBuilder:
    """Return what both kinds have in common."""
    return (
        x509.CertificateBuilder()
        .subject_name(whose)
        .issuer_name(by)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID_FROM)
        .not_valid_after(now() + years * YEAR)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def fits(file: Path, key_file: Path, ca: x509.Certificate, names: list[str]) -> bool:
    """Tell whether a machine's certificate is of this CA, names it rightly and lasts longer than a year."""
    if not file.exists() or not key_file.exists():
        return False
    found = x509.load_pem_x509_certificate(file.read_bytes())
    try:
        found.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    said = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(said) == {general_name(one) for one in names} and found.not_valid_after_utc > now() + YEAR


def load_key(text: str | None, file: Path) -> ec.EllipticCurvePrivateKey:
    """Return the CA's key: the text given, or the file."""
    try:
        key = serialization.load_pem_private_key(text.encode() if text else file.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        sys.exit(f"the CA's key {file} cannot be read: {error}")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        sys.exit(f"{file} is no elliptic-curve key")
    return key


def general_name(name: str) -> x509.GeneralName:
    """Return an address or a host name as certificates hold it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def common_name(name: str) -> x509.Name:
    """Return what a certificate is about, for people."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def now() -> datetime.datetime:
    """Return the time."""
    return datetime.datetime.now(datetime.UTC)


def private(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key as PEM, in clear."""
    clear = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, clear)


def public(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def write(file: Path, data: bytes, mode: int) -> None:
    """Write a file whole; a key is never readable for others, not even for a moment."""
    half = file.with_name(f".{file.name}.part")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as target:
        target.write(data)
    half.replace(file)


if __name__ == "__main__":
    given = json.load(sys.stdin)
    print(json.dumps(main(Path(sys.argv[1]), given["machines"], given.get("ca_key"))))
