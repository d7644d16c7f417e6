"""Where the control plane listens, and whom its clients believe."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control_plane import listen
from control_plane.client import Client
from control_plane.listen import Listen
from infra.local import certificates
from runtime.errors import Invalid, Refused, Unauthorized, Unavailable
from tests.control_plane.test_bootstrap import Bootstrap
from tests.control_plane.test_bootstrap import platform as platform  # the fixture


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A certificate for 127.0.0.1, its key, and the authority that signed it."""
    folder = tmp_path / "ca"
    certificates.ensure(folder)
    return folder / "edge.pem", folder / "edge.key", folder / "ca.pem"


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.5", "::", "db.example", "169.254.0.1"])
def test_another_place_than_loopback_is_refused_without_tls(
    host: str, pair: tuple[Path, Path, Path]
) -> None:
    with pytest.raises(Refused, match="without TLS") as refused:
        listen.chosen(host, None, None)
    assert "--tls-cert" in (refused.value.hint or "")
    certificate, key, _ = pair
    made = listen.chosen(host, certificate, key)
    assert made == Listen(host, certificate.read_text(), key.read_text())
    assert "PRIVATE" not in repr(made)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "https://127.0.0.1:1"),
        ("0.0.0.0", "https://127.0.0.1:1"),
        ("::", "https://[::1]:1"),
        ("fd00::1", "https://[fd00::1]:1"),
        ("ops.example", "https://ops.example:1"),
    ],
)
def test_a_client_of_this_machine_knows_where_to_go(host: str, address: str) -> None:
    assert Listen(host, "c", "k").address(1) == address


def test_loopback_needs_no_certificate_and_half_a_pair_is_none(
    pair: tuple[Path, Path, Path],
) -> None:
    certificate, key, authority = pair
    assert listen.chosen(None, None, None) is None
    assert listen.chosen("localhost", None, None) == Listen("localhost")
    assert listen.chosen("[::1]", None, None) == Listen("::1")
    for one, other in ((certificate, None), (None, key), (authority, key), (key, certificate)):
        with pytest.raises(Invalid):
            listen.chosen(None, one, other)
    with pytest.raises(Invalid, match=r"nowhere\.pem"):
        listen.chosen(None, Path("nowhere.pem"), key)


def test_a_token_never_goes_in_the_clear_nor_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="in the clear"):
        Client("http://ops.example:18000", token="secret")
    with pytest.raises(Unauthorized, match="no token"):
        Client("https://ops.example:18000")
    with pytest.raises(Unauthorized, match="no file"):
        Client("https://ops.example:18000", token_file=tmp_path / "none")
    with pytest.raises(Invalid, match="cannot be used"):
        Client("https://ops.example:18000", token="secret", ca_file=tmp_path / "none")


@pytest.mark.process
async def test_with_tls_it_is_believed_by_its_own_certificate_or_by_its_authority(
    platform: Bootstrap, pair: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    certificate, key, authority = pair
    options = ("--listen", "127.0.0.1", "--tls-cert", str(certificate), "--tls-key", str(key))
    expired = tmp_path / "expired"
    certificates.ensure(expired, now=datetime.now(UTC) - timedelta(days=400))
    old = ("--tls-cert", f"{expired}/edge.pem", "--tls-key", f"{expired}/edge.key")
    code, answer = platform.up(*old)
    assert code == 0, answer
    address, token, pid = answer["address"], Path(answer["tokenFile"]), platform.pid()
    assert address.startswith("https://")
    (expired / "edge.pem").unlink()
    assert platform.up() == (0, answer)
    assert platform.pid() == pid
    async with Client(address, state_dir=platform.root) as here:
        await here.status()
    async with Client(address, token_file=token, ca_file=expired / "ca.pem") as elsewhere:
        with pytest.raises(Unavailable, match="expired") as problem:
            await elsewhere.status()
        assert "--tls-cert" in (problem.value.hint or "")
    assert platform.up(*options) == (0, answer)
    assert platform.pid() != pid
    async with Client(address, state_dir=platform.root) as here:
        assert (await here.status())["controlPlane"]["address"] == address
    async with Client(address, token_file=token, ca_file=authority) as elsewhere:
        assert await elsewhere.who_am_i() == {"name": "root", "role": "admin", "token": None}
    certificates.ensure(tmp_path / "others")
    for stranger in (
        Client(address, token_file=token, ca_file=tmp_path / "others" / "ca.pem"),
        Client(address, token_file=token),
        Client(address.replace("https", "http"), token_file=token),
    ):
        async with stranger:
            with pytest.raises(Unavailable):
                await stranger.status()
    code, answer = platform.up("--listen", "127.0.0.1")
    assert (code, answer["address"]) == (0, address.replace("https", "http"))
    assert json.loads((platform.root / "control" / "listen.json").read_text())["key"] is None
    async with Client(answer["address"], state_dir=platform.root) as here:
        await here.status()
