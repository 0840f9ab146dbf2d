"""Settings: what is said wrongly is refused by its name, and nobody is let in by accident."""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import replace
from pathlib import Path

import bcrypt
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from redkeep.bootstrap import clouds_yaml, control_password, first_start, openrc
from redkeep.config import Config, default_state_dir, load
from redkeep.errors import Refused
from redkeep.model.instance import Flavor
from redkeep.model.topology import Address
from redkeep.vault import Vault


def settings(state: Path, text: str = "") -> Config:
    state.mkdir(exist_ok=True)
    (state / "redkeep.conf").write_text(text)
    return load(state)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("[api]\nport = 99999", "port"),
        ("[api]\nport = http", "port"),
        ("[api]\nauth = maybe", "auth"),
        ("[api]\ntoken_lifetime = 1", "token_lifetime"),
        ("[api]\nlisten = not an address", "listen"),
        ("[api]\nflavor = small", "api.flavor"),
        ("[api]\nflavor = 1:small:0", "api.flavor"),
        ("[api]\nflavor = 1:small:64:2:9", "api.flavor"),
        ("[api]\nflavor = 1:small:64\nflavor = 1:large:640", "api.flavor"),
        ("[manager]\nword = 0.1", "word"),
        ("[manager]\nlease = -1", "lease"),
        ("[agent]\nports = 9000-8000", "ports"),
        ("[agent]\nports = many", "ports"),
        ("[agent]\nheartbeat = often", "heartbeat"),
        ("[agent]\ndiskless_sync = perhaps", "diskless_sync"),
        ("[northbound]\nurl = http://nowhere", "northbound.url"),
        ("[northbound]\nurl = redis://", "northbound.url"),
        ("[northbound]\nurl = redis://host:port", "northbound.url"),
        ("[northbound]\nport = 0.5", "port"),
        ("[redis]\ncluster_support = perhaps", "cluster_support"),
        ("[redis]\nguestagent_strategy = no.such.Class", "no.such.Class"),
        ("[redis]\nguestagent_strategy = redkeep.config.Config", "cluster_meet"),
        ("[backend]\nname = a@b", "backend.name"),
        ("[backend]\nreplication_device = dr1", "replication_device"),
        ("[backend]\nreplication_device = site:paris", "replication_device"),
        ("[backend]\nreplication_device = backend_id:default", "replication_device"),
        ("[backend]\nreplication_device = backend_id:a\nreplication_device = backend_id:a", "replication_device"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_option(tmp_path: Path, text: str, option: str) -> None:
    with pytest.raises(Refused) as refusal:
        settings(tmp_path, text)

    assert option in str(refusal.value)
    assert "redkeep.conf" in str(refusal.value)


def test_the_targets_of_a_backend_are_read_in_order_and_name_their_sites(tmp_path: Path) -> None:
    devices = "replication_device = backend_id:dr1\nreplication_device = backend_id:dr2, site:oslo ,pace:slow"

    backend = settings(tmp_path, f"[backend]\nsite = bern\n{devices}").backend

    assert [(one.backend_id, one.site, dict(one.options)) for one in backend.targets] == [
        ("dr1", "dr1", {}),
        ("dr2", "oslo", {"pace": "slow"}),
    ]
    assert [backend.site_label(target) for target in ("default", "dr2", "typo")] == ["bern", "oslo", None]


@pytest.mark.parametrize("text", ["no section = 1", "[api\nport = 1", "port"])
def test_a_file_that_is_no_settings_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Refused, match=r"redkeep\.conf"):
        settings(tmp_path, text)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "db.example", "127.example.com", "127.0.0.1.example"])
def test_without_authentication_nobody_beyond_this_machine_is_served(tmp_path: Path, host: str) -> None:
    with pytest.raises(Refused, match="noauth"):
        settings(tmp_path, f"[api]\nauth = noauth\nlisten = {host}")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_without_authentication_this_machine_is_served(tmp_path: Path, host: str) -> None:
    assert settings(tmp_path, f"[api]\nauth = noauth\nlisten = {host}").listen.host == host


def test_nothing_needs_to_be_set(tmp_path: Path) -> None:
    config = settings(tmp_path)

    assert config.listen == Address("127.0.0.1", 8779)
    assert config.api.auth == "basic"
    assert config.northbound is None
    assert config.store_url == f"sqlite:///{tmp_path}/redkeep.db"
    assert (config.agent.port_low, config.agent.port_high) == (7000, 7999)
    assert config.agent.word_seconds <= max(config.manager.word_seconds, 3.0)


def test_the_operator_says_which_sizes_can_be_ordered(tmp_path: Path) -> None:
    config = settings(tmp_path, "[api]\nflavor = s:small:64\nflavor = l:large:640:4")

    assert config.api.flavors == (Flavor("s", "small", 64), Flavor("l", "large", 640, vcpus=4))
    assert config.manager.flavors.keys() == {"s", "l"}


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    settings(tmp_path, "[api]\nport = 1234")

    assert load(tmp_path, overrides=[("api", "port", 4321)]).listen.port == 4321
    assert load(tmp_path, overrides=[("api", "port", None)]).listen.port == 1234


def test_a_northbound_url_says_who_and_where(tmp_path: Path) -> None:
    found = settings(tmp_path, "[northbound]\nurl = redis://me:p%40ss@control:6380").northbound

    assert found is not None
    assert (found.address, found.username, found.password) == (Address("control", 6380), "me", "p@ss")


def test_state_goes_where_the_desktop_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    assert default_state_dir() == tmp_path / "redkeep"


# --- The first start


def started(state: Path, text: str = "") -> tuple[Config, str | None]:
    config = settings(state, text)
    return config, first_start(config, Vault.open(config.key_file))


def test_the_first_start_makes_an_administrator_and_the_second_keeps_it(tmp_path: Path) -> None:
    config, password = started(tmp_path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}

    assert password is not None
    user, _, hashed = config.api.htpasswd.read_text().strip().partition(":")
    assert user == config.api.admin_user
    assert bcrypt.checkpw(password.encode(), hashed.encode())
    assert started(tmp_path)[1] is None
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_what_the_first_start_writes_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        config, _ = started(tmp_path)
    finally:
        os.umask(before)

    for name in ("clouds.yaml", "openrc", "htpasswd", "secret.key", "northbound.sealed"):
        assert stat.S_IMODE((config.state_dir / name).stat().st_mode) == 0o600, name


def test_the_password_stands_nowhere_but_where_clients_need_it(tmp_path: Path) -> None:
    config, password = started(tmp_path)
    control = control_password(config, Vault.open(config.key_file))

    assert password is not None
    holders = {one.name for one in tmp_path.iterdir() if password.encode() in one.read_bytes()}
    assert holders == {"clouds.yaml", "openrc"}
    assert not [one for one in tmp_path.iterdir() if control.encode() in one.read_bytes()]


def test_the_clients_files_follow_the_address_and_keep_the_password(tmp_path: Path) -> None:
    _, password = started(tmp_path)

    _, made_again = started(tmp_path, "[api]\nport = 9999")

    auth = yaml.safe_load((tmp_path / "clouds.yaml").read_text())["clouds"]["redkeep"]["auth"]
    assert made_again is None
    assert auth["auth_url"] == "http://127.0.0.1:9999/identity/v3"
    assert auth["password"] == password
    assert "http://127.0.0.1:9999/identity/v3" in (tmp_path / "openrc").read_text()
    assert password is not None
    assert password in (tmp_path / "openrc").read_text()


def test_a_start_that_died_before_its_end_is_done_again(tmp_path: Path) -> None:
    config, first = started(tmp_path)
    config.api.htpasswd.unlink()

    _, second = started(tmp_path)

    auth = yaml.safe_load((tmp_path / "clouds.yaml").read_text())["clouds"]["redkeep"]["auth"]
    assert second is not None
    assert second != first
    assert auth["password"] == second


NOWHERE = load(Path("/nowhere"))
passwords = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=1, max_size=24)
regions = st.sampled_from(["RegionOne", "no", "1e3", "2026-11-20", "it's", "a: b", "null"])


@given(passwords, regions)
def test_clients_read_the_password_and_the_region_as_they_are(password: str, region: str) -> None:
    config = replace(NOWHERE, api=replace(NOWHERE.api, region=region))

    cloud = yaml.safe_load(clouds_yaml(config, password))["clouds"]["redkeep"]
    exports = dict(shlex.split(line)[1].split("=", 1) for line in openrc(config, password).splitlines())

    assert cloud["auth"]["password"] == password
    assert cloud["region_name"] == region
    assert exports["OS_PASSWORD"] == password
    assert exports["OS_REGION_NAME"] == region


def test_backups_lie_in_the_state_directory_unless_another_place_is_named(tmp_path: Path) -> None:
    usual = settings(tmp_path / "a b").backup
    bucket = settings(tmp_path / "c", "[backup]\nstorage = s3://keep/x\nendpoint_url = http://s3\nshared = true").backup

    assert (usual.url, usual.shared) == (f"file://{tmp_path}/a%20b/backups", False)
    assert (bucket.url, bucket.endpoint_url, bucket.shared) == ("s3://keep/x", "http://s3", True)
    assert usual.host_id == settings(tmp_path / "c").agent.host_id


def test_the_strategies_of_clusters_are_settings(tmp_path: Path) -> None:
    names = ("api_strategy", "taskmanager_strategy", "guestagent_strategy")
    ours = settings(tmp_path / "default")
    theirs = settings(
        tmp_path / "other",
        "[redis]\n" + "\n".join(f"{name} = redkeep.agent.guest.GuestAgentStrategy" for name in names),
    )

    assert ours.api.cluster_strategy == "redkeep.api.cluster_strategy.RedisApiStrategy"
    assert ours.manager.taskmanager_strategy == "redkeep.operations.cluster_strategy.RedisTaskManagerStrategy"
    assert ours.agent.guestagent_strategy.__name__ == "GuestAgentStrategy"
    assert {theirs.api.cluster_strategy, theirs.manager.taskmanager_strategy} == {
        "redkeep.agent.guest.GuestAgentStrategy"
    }
    assert settings(tmp_path / "off", "[redis]\ncluster_support = no").api.cluster_support is False
