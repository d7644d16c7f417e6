"""Where the control plane listens, and how a client of this machine can be sure that it is it.

Kept in `control/listen.json` of the state directory, certificate and key too, so that a later `up`
goes on with it, and what is served stays a pair whatever becomes of the files that it came from.
On loopback plain HTTP will do; anywhere else only TLS, for tokens must not be read on the way.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
from dataclasses import asdict, dataclass, field
from pathlib import Path

from runtime.errors import Invalid, Refused

LOOPBACK = "127.0.0.1"
# X509_V_FLAG_NO_CHECK_TIME of OpenSSL, for which the module ssl has no name.
NO_CHECK_TIME = 0x200000
END = "-----END CERTIFICATE-----"


@dataclass(frozen=True)
class Listen:
    """`host` is an address or a name; `certificate` and `key` are PEM texts."""

    host: str = LOOPBACK
    certificate: str | None = None
    key: str | None = field(default=None, repr=False)

    def address(self, port: int) -> str:
        """The URL for clients of this machine."""
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://{_dialled(self.host)}:{port}"

    def trust(self) -> ssl.SSLContext | None:
        """Trusts this very certificate, whoever issued it and whatever it is called; None: no TLS.

        It is the first in `certificate`. Who shows it and has its key is the control plane, also
        when it has expired: then the way to a new one must not be barred.
        """
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
        context.load_verify_locations(cadata=self.certificate.partition(END)[0] + END)
        return context


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
    try:
        _check_pair(certificate, key)
        texts = [each.read_text(encoding="ascii") for each in (certificate, key)]
        listen = Listen(host, *texts)
        listen.trust()
    except (OSError, ValueError) as error:
        raise Invalid(
            f"The certificate {certificate} and its key cannot be used: {error}.",
            hint="Both are PEM files; the certificate comes first in its file.",
        ) from error
    return listen


def read(control_dir: Path) -> Listen:
    try:
        return Listen(**json.loads((control_dir / "listen.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Listen()


def text(listen: Listen) -> str:
    return json.dumps(asdict(listen), indent=1)


def _check_pair(certificate: Path, key: Path) -> None:
    def no_password() -> str:
        raise Invalid(f"{key} needs a password.", hint="Give a key without one, of mode 0600.")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key, no_password)
