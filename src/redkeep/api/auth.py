"""Who is calling, and which projects are theirs: HTTP Basic against an htpasswd file, or a token of `identity.py`.

Names, passwords and tokens never reach a log or an error's text.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import bcrypt

from redkeep.api.settings import ApiSettings
from redkeep.errors import Refused, Unavailable
from redkeep.vault import Vault

log = logging.getLogger(__name__)

REFUSAL = "This needs valid credentials: HTTP Basic, or a token in X-Auth-Token."
PURPOSE = "redkeep api"
"""Other things are sealed with the same key; none of them is a token."""
MOST_VERIFIED = 1024
CONCURRENT_CHECKS = 2
"""bcrypt burns a core for each: a flood of wrong passwords must not take all threads."""

_BCRYPT = ("$2a$", "$2b$", "$2y$")
_DECOY = "$2b$10$" + "." * 53


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose credentials were good."""

    name: str
    is_admin: bool
    project: str | None = None
    """What its token is scoped to; None: not bound to one."""

    def may_use(self, project: str) -> bool:
        """The administrator uses any project, everybody else the one that bears their name."""
        return (self.is_admin or project == self.name) and self.project in (None, project)


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says. It travels sealed, so it can be neither read nor made by others."""

    user: str
    project: str | None
    issued: float
    proof: str
    """Of the user's password hash at that time: a changed password ends all tokens."""
    purpose: str = PURPOSE


class PasswordFile:
    """An htpasswd file with bcrypt hashes, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._hashes: Mapping[str, str] = {}

    def hash_of(self, name: str) -> str | None:
        """The user's bcrypt hash. Raises Unavailable when the file cannot be read."""
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            if version != self._version:
                self._hashes, self._version = parse_htpasswd(self._path.read_text()), version
        except (OSError, UnicodeDecodeError) as error:
            log.error("cannot read the password file: %s", error)
            raise Unavailable("The password file of the API cannot be read; its operator has to look.") from error
        return self._hashes.get(name)

    def decoy(self) -> str:
        """What to compare with when there is no such user, so that the time it takes does not tell that."""
        return next(iter(self._hashes.values()), _DECOY)


def parse_htpasswd(text: str) -> Mapping[str, str]:
    """Hashes by name. Lines with other hashes than bcrypt are left out, and counted in the log."""
    entries = [line.strip().partition(":") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    hashes = {name: hashed for name, _, hashed in entries if name and hashed.startswith(_BCRYPT)}
    if len(hashes) < len(entries):
        log.warning(
            "%d lines of the password file are of no use: make them with htpasswd -B", len(entries) - len(hashes)
        )
    return hashes


def matches(password: str, hashed: str) -> bool:
    """bcrypt says yes. What bcrypt cannot digest (more than 72 bytes, a damaged hash) does not match."""
    try:
        return bcrypt.checkpw(password.encode(), hashed.encode())
    except ValueError:
        return False


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Name and password out of an Authorization header, or None when it holds none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return (name, password) if colon else None


class Gate:
    """Checks credentials; remembers for a while, under a keyed digest, which were good."""

    def __init__(self, settings: ApiSettings, vault: Vault, clock: Callable[[], float]) -> None:
        """`clock`: seconds since 1970, by which tokens age (as the vault counts)."""
        self.open = settings.auth == "noauth"
        self.lifetime = settings.token_lifetime_seconds
        self._admin = settings.admin_user
        self._remember = settings.verified_for_seconds
        self._file = PasswordFile(settings.htpasswd)
        self._vault = vault
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._verified: dict[bytes, float] = {}
        self._checks = asyncio.Semaphore(CONCURRENT_CHECKS)

    async def caller(self, headers: Mapping[str, str]) -> Caller:
        """Whose request this is. Raises Refused (kind `unauthorized`)."""
        if self.open:
            return Caller(self._admin, is_admin=True)
        if token := headers.get("x-auth-token"):
            return self.bearer(token)
        if pair := basic_credentials(headers.get("authorization", "")):
            return await self.login(*pair)
        raise Refused(REFUSAL, kind="unauthorized")

    async def login(self, name: str, password: str) -> Caller:
        """Check name and password. Raises Refused (kind `unauthorized`)."""
        if not self.open and not await self._verify(name, password):
            raise Refused(REFUSAL, kind="unauthorized")
        return Caller(name, is_admin=self.open or name == self._admin)

    def issue(self, caller: Caller, project: str | None) -> tuple[str, Token]:
        """A token for the project, sealed, and what it says. Raises Refused when the project is not the caller's."""
        if project is not None and not caller.may_use(project):
            raise Refused(f"User {caller.name} has no project {project[:64]}.", kind="unauthorized")
        token = Token(caller.name, project, self._clock(), self._proof(caller.name))
        return self._vault.seal(json.dumps(asdict(token))), token

    def read(self, sealed: str) -> Token:
        """What a token says. Raises Refused (kind `unauthorized`) when it is not one, not ours, or no longer good."""
        try:
            token = Token(**json.loads(self._vault.unseal(sealed, max_age_seconds=self.lifetime)))
        except (Refused, ValueError, TypeError):
            raise Refused(REFUSAL, kind="unauthorized") from None
        genuine = token.purpose == PURPOSE and hmac.compare_digest(token.proof, self._proof(token.user))
        if not genuine:
            raise Refused(REFUSAL, kind="unauthorized")
        return token

    def bearer(self, sealed: str) -> Caller:
        """Who may use this token. Raises Refused (kind `unauthorized`)."""
        token = self.read(sealed)
        return Caller(token.user, is_admin=self.open or token.user == self._admin, project=token.project)

    def _proof(self, name: str) -> str:
        """Stands for the user's present password. Raises Refused when the user is gone."""
        if self.open:
            return ""
        hashed = self._file.hash_of(name)
        if hashed is None:
            raise Refused(REFUSAL, kind="unauthorized")
        return hashlib.sha256(hashed.encode()).hexdigest()

    async def _verify(self, name: str, password: str) -> bool:
        hashed = self._file.hash_of(name)
        # The hash is part of the digest, so whoever changes the file also empties this memory.
        known = "\0".join((name, password, hashed or "")).encode()
        key = hmac.digest(self._key, known, "sha256")
        now = asyncio.get_running_loop().time()
        if self._verified.get(key, 0.0) > now:
            return True
        async with self._checks:
            good = await asyncio.to_thread(matches, password, hashed or self._file.decoy()) and hashed is not None
        if good:
            self._verified = {one: until for one, until in self._verified.items() if until > now}
            if len(self._verified) < MOST_VERIFIED:
                self._verified[key] = now + self._remember
        return good
