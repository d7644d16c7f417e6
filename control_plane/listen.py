"""Where the control plane listens, and how a client of this machine can be sure that it is it.

Kept in `control/listen.json` of the state directory, so that a later `up` goes on with it. On
loopback plain HTTP will do; anywhere else only TLS, for tokens must not be read on the way.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.errors import Invalid, Refused

LOOPBACK = "127.0.0.1"
END = "-----END CERTIFICATE-----"


@dataclass(frozen=True)
class Listen:
    """`host` is an address or a name; `certificate` and `key` are PEM files."""

    host: str = LOOPBACK
    certificate: str | None = None
    key: str | None = None

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    def address(self, port: int) -> str:
        """The URL for clients of this machine."""
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://{_dialled(self.host)}:{port}"

    def trust(self) -> ssl.SSLContext | None:
        """Trusts this very certificate, whoever issued it and whatever it is called; None: no TLS.

        Raises `Invalid` when the certificate cannot be read.
        """
        return pinned(Path(self.certificate)) if self.certificate else None


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _dialled(host: str) -> str:
    """Where a server that is bound to `host` can be reached from here."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return LOOPBACK if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"


def chosen(host: str | None, certificate: Path | None, key: Path | None) -> Listen | None:
    """What the options of `up` say; None: nothing, so it stays as it is.

    Raises `Refused` for another place than loopback without TLS, `Invalid` for half a pair or
    files that are no certificate with its key.
    """
    if host is None and certificate is None and key is None:
        return None
    if (certificate is None) != (key is None):
        raise Invalid(
            "A certificate and its key belong together.", hint="--tls-cert FILE --tls-key FILE"
        )
    host = LOOPBACK if host is None else host.strip("[]")
    if certificate is None or key is None:
        if not is_loopback(host):
            raise Refused(
                f"Listening on {host} without TLS would show every token to the network.",
                hint="add --tls-cert FILE --tls-key FILE, or leave out --listen",
            )
        return Listen(host)
    _check_pair(certificate, key)
    return Listen(host, str(certificate.absolute()), str(key.absolute()))


def read(control_dir: Path) -> Listen:
    try:
        return Listen(**json.loads((control_dir / "listen.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Listen()


def text(listen: Listen) -> str:
    return json.dumps(asdict(listen), indent=1)


def pinned(certificate: Path) -> ssl.SSLContext:
    """Accepts the server that shows the first certificate in this file, and no other.

    That certificate says which server it is, so its name need not.
    """
    try:
        first = certificate.read_text(encoding="ascii").partition(END)[0] + END
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=first)
    except (OSError, ValueError) as error:
        raise _unusable(certificate, error) from error
    return context


def _check_pair(certificate: Path, key: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def no_password() -> str:
        raise Invalid(f"{key} needs a password.", hint="Give a key without one, of mode 0600.")

    try:
        context.load_cert_chain(certificate, key, no_password)
    except (OSError, ValueError) as error:
        raise _unusable(certificate, error) from error
    pinned(certificate)


def _unusable(certificate: Path, error: Exception) -> Invalid:
    return Invalid(
        f"The certificate {certificate} and its key cannot be used: {error}.",
        hint="Both are PEM files; the certificate is the first in its file, the key is its key.",
    )
