"""The local certificate authority."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from infra.local import certificates

FILES = ("ca.pem", "ca.key", "edge.pem", "edge.key")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    certificates.ensure(tmp_path)
    before = contents(tmp_path)
    certificates.ensure(tmp_path)
    assert contents(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_keys_are_private_and_certificates_are_public(tmp_path: Path) -> None:
    certificates.ensure(tmp_path)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in FILES}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "edge.pem": 0o644, "edge.key": 0o600}


def test_the_edge_is_renewed_before_it_expires_and_the_authority_stays(tmp_path: Path) -> None:
    certificates.ensure(tmp_path)
    before = contents(tmp_path)
    later = datetime.now(UTC) + timedelta(days=340)
    certificates.ensure(tmp_path, now=later)
    after = contents(tmp_path)
    assert after["ca.pem"] == before["ca.pem"]
    edge = x509.load_pem_x509_certificate(after["edge.pem"])
    assert edge.not_valid_after_utc > later + timedelta(days=300)


def test_a_new_authority_issues_a_new_edge(tmp_path: Path) -> None:
    certificates.ensure(tmp_path)
    (tmp_path / "ca.key").unlink()
    before = contents_of(tmp_path, "ca.pem", "edge.pem")
    certificates.ensure(tmp_path)
    after = contents_of(tmp_path, "ca.pem", "edge.pem")
    assert after["ca.pem"] != before["ca.pem"]
    assert after["edge.pem"] != before["edge.pem"]


def contents_of(folder: Path, *names: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def test_a_pair_that_does_not_match_is_mended(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    certificates.ensure(one)
    certificates.ensure(two)
    (one / "edge.key").write_bytes((two / "edge.key").read_bytes())
    certificates.ensure(one)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(one / "edge.pem", one / "edge.key")


def test_another_host_needs_another_certificate(tmp_path: Path) -> None:
    certificates.ensure(tmp_path)
    certificates.ensure(tmp_path, hosts=("127.0.0.1", "localhost", "shop.test"))
    edge = x509.load_pem_x509_certificate((tmp_path / "edge.pem").read_bytes())
    names = edge.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "shop.test"]


def test_damaged_files_are_replaced(tmp_path: Path) -> None:
    certificates.ensure(tmp_path)
    for name in FILES:
        (tmp_path / name).write_bytes(b"not a certificate")
    certificates.ensure(tmp_path)
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    assert context.get_ca_certs()
