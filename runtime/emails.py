"""One spelling an e-mail address. Pure.

The directory's key and what a user is shown are the same normal form: Unicode composed (NFC), the
local part in lower case, and the domain in its ASCII form (IDNA 2008 after the mapping of UTS 46),
so `JÖRG@Bücher.example` is `jörg@xn--bcher-kva.example`. Mail servers may tell local parts apart by
case; none that matters does, and two users whose addresses look the same are a way to deceive.
For that reason nothing invisible is in an address, and a domain is letters, digits, `-` and `_`:
with a `>` in it, mail would go to whom the part before that names.
"""

from __future__ import annotations

import re
import unicodedata

import idna

from runtime.errors import Invalid

LIMIT = 254
SHAPE = re.compile(r"[^\s@]{1,64}@[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


def normal(email: str) -> str:
    """Raises `Invalid` for what is no address. The normal form of a normal form is itself."""
    local, at, domain = unicodedata.normalize("NFC", email.strip()).rpartition("@")
    # Lower case may decompose a letter, and composing may give one that has a lower case.
    for _ in range(3):
        local = unicodedata.normalize("NFC", local.lower())
    try:
        ascii_domain = domain.lower() if domain.isascii() else _idna(domain)
        address = f"{local}{at}{ascii_domain}"
        address.encode()
    except UnicodeError as error:
        raise _invalid() from error
    if len(address) > LIMIT or not address.isprintable() or not SHAPE.fullmatch(address):
        raise _invalid()
    return address


def _idna(domain: str) -> str:
    """Raises `UnicodeError`."""
    return idna.encode(domain, uts46=True).decode()


def _invalid() -> Invalid:
    return Invalid(
        "That is no e-mail address.",
        hint=f"NAME@DOMAIN, at most {LIMIT} characters, a domain that can exist.",
    )
