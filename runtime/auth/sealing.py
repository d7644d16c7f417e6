"""What only the auth service can read: private keys in the catalog, and refresh tokens.

Both are sealed by Fernet (AES-128-CBC with HMAC-SHA256), each with a key of its own that is
derived from the platform's secret `tokenKey`.
"""

from __future__ import annotations

import base64
import json
from typing import Literal

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc.jwk import ECKey

from runtime.errors import Unavailable

Use = Literal["signing keys", "refresh tokens"]


def fernet(secret: str, use: Use) -> Fernet:
    """Raises `Unavailable` when this process was not given the secret."""
    if not secret:
        raise Unavailable(
            "The secret tokenKey is not set.", hint="REGIONCTL_SECRETS must have it for auth."
        )
    derived = HKDF(SHA256(), 32, salt=None, info=f"regionctl {use}".encode())
    return Fernet(base64.urlsafe_b64encode(derived.derive(secret.encode())))


def seal(secret: str, key: ECKey) -> str:
    """The private key, as only `unseal` with the same secret can read it."""
    jwk = json.dumps(key.as_dict(private=True))
    return fernet(secret, "signing keys").encrypt(jwk.encode()).decode()


def unseal(secret: str, sealed: str) -> ECKey:
    """Raises `Unavailable` when it was sealed with another secret."""
    try:
        jwk = fernet(secret, "signing keys").decrypt(sealed.encode())
    except InvalidToken as error:
        raise Unavailable(
            "A signing key was sealed with another tokenKey.",
            hint="Restore the platform's secrets, or delete the row in signing_keys.",
        ) from error
    return ECKey.import_key(json.loads(jwk))
