"""Secrets: what was sealed comes back, what was touched does not, and two first starts agree on one key."""

from __future__ import annotations

import hashlib
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from redkeep.errors import Refused
from redkeep.vault import Vault, digest, new_password

VAULT = Vault(Fernet.generate_key())


@given(st.text())
def test_what_was_sealed_comes_back(secret: str) -> None:
    token = VAULT.seal(secret)

    assert VAULT.unseal(token) == secret
    assert VAULT.seal(secret) != token
    assert len(secret) < 4 or secret not in token


@given(st.text(min_size=1), st.data())
def test_a_token_that_was_touched_is_refused(secret: str, data: st.DataObject) -> None:
    token = VAULT.seal(secret)
    at = data.draw(st.integers(0, len(token.rstrip("=")) - 2))
    other = data.draw(st.sampled_from("ABCxyz019").filter(lambda letter: letter != token[at]))

    with pytest.raises(Refused) as refusal:
        VAULT.unseal(token[:at] + other + token[at + 1 :])
    assert refusal.value.kind == "unauthorized"


@given(st.text())
def test_what_was_never_sealed_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        VAULT.unseal(text)


def test_a_token_of_another_installation_is_refused() -> None:
    with pytest.raises(Refused):
        VAULT.unseal(Vault(Fernet.generate_key()).seal("secret"))


def test_a_digest_is_what_redis_keeps_of_a_password() -> None:
    assert digest("secret") == hashlib.sha256(b"secret").hexdigest()


def test_passwords_need_no_quoting_and_never_repeat() -> None:
    made = {new_password() for _ in range(1000)}

    assert len(made) == 1000
    assert all(len(one) >= 43 and one.replace("-", "").replace("_", "").isalnum() for one in made)


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    key = tmp_path / "state" / "secret.key"
    token = Vault.open(key).seal("secret")

    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert Vault.open(key).unseal(token) == "secret"
    assert [one.name for one in key.parent.iterdir()] == ["secret.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_may_touch_is_refused_with_the_way_out(tmp_path: Path, mode: int) -> None:
    key = tmp_path / "secret.key"
    Vault.open(key)
    key.chmod(mode)

    with pytest.raises(Refused, match="chmod 600"):
        Vault.open(key)


@pytest.mark.parametrize("content", [b"", b"not a key", b"\xff\x00", b"A" * 44])
def test_a_file_that_is_no_key_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    key = tmp_path / "secret.key"
    key.write_bytes(content)
    key.chmod(0o600)

    with pytest.raises(Refused, match="restore it"):
        Vault.open(key)
    assert key.read_bytes() == content


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    key = tmp_path / "secret.key"
    code = f"from pathlib import Path; from redkeep.vault import Vault; print(Vault.open(Path({str(key)!r})).seal('x'))"

    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    tokens = [one.communicate(timeout=30)[0].strip() for one in started]

    assert {Vault.open(key).unseal(token) for token in tokens} == {"x"}
    assert [one.name for one in tmp_path.iterdir()] == ["secret.key"]
