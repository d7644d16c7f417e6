"""The local certificate authority, and the edge's certificate.

Made once at `up`; a pair that expires within 30 days, does not match, or names too few hosts is
made anew. Private keys have mode 0600. Clients trust `ca.pem`, so the authority is replaced only
when it must be.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOSTS = ("127.0.0.1", "localhost")
AUTHORITY_LIFE = timedelta(days=3650)
EDGE_LIFE = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)

Key = ec.EllipticCurvePrivateKey


def ensure(ca_dir: Path, hosts: Sequence[str] = HOSTS, *, now: datetime | None = None) -> None:
    """Put `ca.pem`, `ca.key`, `edge.pem` and `edge.key` into `ca_dir`, or leave good ones alone.

    `hosts` are names and addresses that the edge's certificate is good for. Each file is replaced
    as a whole, key before certificate: a crash in between leaves a pair that does not match, which
    the next call mends.
    """
    now = now or datetime.now(UTC)
    ca_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = _read(ca_dir, "ca", now)
    if authority is None:
        authority = _make_authority(now)
        _write(ca_dir, "ca", *authority)
    edge = _read(ca_dir, "edge", now)
    if edge is None or not _issued(edge[0], authority[0]) or not _covers(edge[0], hosts):
        _write(ca_dir, "edge", *_make_edge(*authority, hosts, now))


def ends(ca_dir: Path) -> dict[str, datetime]:
    """Until when the certificates that are there are good: "ca" and "edge"."""
    found: dict[str, datetime] = {}
    for name in ("ca", "edge"):
        path = ca_dir / f"{name}.pem"
        if path.exists():
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            found[name] = certificate.not_valid_after_utc
    return found


def _make_authority(now: datetime) -> tuple[x509.Certificate, Key]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "regionctl local authority")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, name, key, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _make_edge(
    authority: x509.Certificate, authority_key: Key, hosts: Sequence[str], now: datetime
) -> tuple[x509.Certificate, Key]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "regionctl edge")])
    life = min(EDGE_LIFE, authority.not_valid_after_utc - now)
    certificate = (
        _builder(name, authority.subject, key, now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _covers(certificate: x509.Certificate, hosts: Sequence[str]) -> bool:
    try:
        present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return set(_names(hosts)) <= set(present)


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _read(folder: Path, name: str, now: datetime) -> tuple[x509.Certificate, Key] | None:
    """The pair, or None when it is missing, damaged, mismatched or about to expire."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    if key.public_key() != certificate.public_key():
        return None
    if certificate.not_valid_after_utc - now < RENEW_BEFORE:
        return None
    return certificate, key


def _write(folder: Path, name: str, certificate: x509.Certificate, key: Key) -> None:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _replace(folder / f"{name}.key", private, 0o600)
    _replace(folder / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _replace(path: Path, content: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
