"""Secrets: made, digested, and kept encrypted wherever they rest or travel.

One key per installation, a file in the state directory that only its owner can read. Every process of Redkeep needs it;
nothing else does.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import string
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from redkeep.errors import Refused


def new_password() -> str:
    """256 bits of chance, in characters that need no quoting anywhere; never what looks like an option."""
    return secrets.choice(string.ascii_letters) + secrets.token_urlsafe(32)


def digest(password: str) -> str:
    """The form in which Redis keeps an ACL user's password: SHA-256 as hex digits."""
    return hashlib.sha256(password.encode()).hexdigest()


class Vault:
    """Encrypts and decrypts with the key of the installation (Fernet: AES-128-CBC with HMAC-SHA256)."""

    def __init__(self, key: bytes) -> None:
        self._fernet = Fernet(key)

    @classmethod
    def open(cls, path: Path, *, create: bool = True) -> Vault:
        """Read the key, or make one at the first start. Two that start at once agree on one key.

        Raises Refused when the file is not a key, others may read it, or it is not there and may not be made.
        """
        if not path.exists():
            if not create:
                way_out = "copy it from the first machine of this installation, or make one with `redkeep init`"
                raise Refused(f"{path} is not there: {way_out}", kind="missing")
            _create_once(path, Fernet.generate_key())
        if path.stat().st_mode & 0o077:
            raise Refused(f"{path} can be read by others: run chmod 600 {path}", kind="forbidden")
        try:
            return cls(path.read_bytes().strip())
        except ValueError as error:
            raise Refused(f"{path} does not hold a key; restore it from a backup, it cannot be made again") from error

    def seal(self, plain: str) -> str:
        """Encrypt; every call gives another token."""
        return self._fernet.encrypt(plain.encode()).decode()

    def unseal(self, token: str, *, max_age_seconds: int | None = None) -> str:
        """Decrypt. Raises Refused (kind `unauthorized`) when the token was altered, is too old, or of another key."""
        try:
            return self._fernet.decrypt(token.encode(), ttl=max_age_seconds).decode()
        except InvalidToken:
            raise Refused("the token is not of this installation's key, or too old", kind="unauthorized") from None


def _create_once(path: Path, content: bytes) -> None:
    """Create with these bytes, whole or not at all; whoever comes second changes nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
