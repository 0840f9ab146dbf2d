"""The first start: an administrator with a password, and the files by which the stock clients find their way in."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import stat
from pathlib import Path

import bcrypt
import yaml

from redkeep.config import Config
from redkeep.errors import Refused
from redkeep.vault import Vault, new_password

BCRYPT_ROUNDS = 10

_IDENTITY_URL = re.compile(r"https?://[^\s']*/identity/v3")


def first_start(config: Config, vault: Vault) -> str | None:
    """Make what is missing. Returns the administrator's password when it was just made, else None.

    The password itself stands in `clouds.yaml` and `openrc`, which only their owner can read, since clients need it.
    """
    config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    control_password(config, vault)
    if config.api.htpasswd.exists():
        _refresh_urls(config)
        return None
    password = secrets.token_urlsafe(18)
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_ROUNDS)).decode()
    write_private(config.state_dir / "clouds.yaml", clouds_yaml(config, password))
    write_private(config.state_dir / "openrc", openrc(config, password))
    write_private(config.api.htpasswd, f"{config.api.admin_user}:{hashed}\n")
    return password


def control_password(config: Config, vault: Vault) -> str:
    """Password of the control Redis that `redkeep up` runs; made at the first call, kept sealed."""
    file = config.state_dir / "northbound.sealed"
    if not file.exists():
        write_private(file, vault.seal(new_password()))
    return vault.unseal(file.read_text())


def clouds_yaml(config: Config, password: str) -> str:
    """For `openstack --os-cloud redkeep`."""
    user = config.api.admin_user
    return (
        "clouds:\n"
        "  redkeep:\n"
        "    auth:\n"
        f"      auth_url: {config.url}/identity/v3\n"
        f"      username: {json.dumps(user)}\n"
        f"      password: {json.dumps(password)}\n"
        f"      project_name: {json.dumps(user)}\n"
        "      user_domain_id: default\n"
        "      project_domain_id: default\n"
        f"    region_name: {json.dumps(config.api.region)}\n"
        "    identity_api_version: 3\n"
        # Without these the SDK asks for a failover of a host in words that belong to a version it does not name.
        '    volume_api_version: "3.26"\n'
        '    block_storage_default_microversion: "3.26"\n'
    )


def openrc(config: Config, password: str) -> str:
    """To be sourced before `trove` or `openstack`."""
    user = config.api.admin_user
    values = {
        "OS_AUTH_URL": f"{config.url}/identity/v3",
        "OS_USERNAME": user,
        "OS_PASSWORD": password,
        "OS_PROJECT_NAME": user,
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_IDENTITY_API_VERSION": "3",
        "OS_VOLUME_API_VERSION": "3.26",
        "OS_REGION_NAME": config.api.region,
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _refresh_urls(config: Config) -> None:
    """The address may have changed since; the password in the files stays."""
    for name in ("clouds.yaml", "openrc"):
        path = config.state_dir / name
        if path.exists():
            text = path.read_text()
            changed = _IDENTITY_URL.sub(f"{config.url}/identity/v3", text)
            if changed != text:
                write_private(path, changed)


def way_in(config: Config) -> tuple[str, tuple[str, str] | None]:
    """Where the API is and who we are there: `clouds.yaml` knows, also after `redkeep up --port`."""
    file = config.state_dir / "clouds.yaml"
    try:
        found = yaml.safe_load(file.read_text())["clouds"]["redkeep"]["auth"]
        url, name, password = (str(found[key]) for key in ("auth_url", "username", "password"))
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        if config.api.auth == "noauth":
            return config.url, None
        raise Refused(f"{file} names no administrator; `redkeep up` or `redkeep init` writes it") from error
    return url.removesuffix("/identity/v3"), None if config.api.auth == "noauth" else (name, password)
