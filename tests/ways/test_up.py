"""`redkeep up` as an operator has it: the process tree, the stock clients, and what happens when parts are killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from redis import Redis
from redis.exceptions import RedisError

from redkeep.testing.servers import free_port

pytestmark = pytest.mark.real

BIN = Path(sys.executable).parent
SERVICES = ("api", "manager", "agent")


@dataclass
class Tree:
    """A state directory, and the `redkeep up` that runs on it."""

    state: Path
    port: int = field(default_factory=free_port)
    northbound_port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    said: str = ""

    def up(self) -> str:
        """Start and wait until it says that it serves; what it said."""
        self.reap()
        self.process = self.popen()
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if "redkeep status" in line:
                break
        self.said = "".join(lines)
        assert self.process.poll() is None, self.log
        return self.said

    def popen(self, *more: str) -> subprocess.Popen[str]:
        ports = ("--port", str(self.port), "--northbound-port", str(self.northbound_port))
        with self.log_file.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "redkeep", "up", "--state-dir", str(self.state), *ports, *more],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    @property
    def log_file(self) -> Path:
        return self.state.with_suffix(".log")

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def down(self) -> float:
        """SIGTERM; how long it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(30)
        return time.monotonic() - began

    def redkeep(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "redkeep", *arguments, "--state-dir", str(self.state)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    # --- as a user

    @property
    def auth(self) -> tuple[str, str]:
        found = yaml.safe_load((self.state / "clouds.yaml").read_text())["clouds"]["redkeep"]["auth"]
        return found["username"], found["password"]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        url = f"http://127.0.0.1:{self.port}/v1.0/{self.auth[0]}{path}"
        reply = httpx.request(method, url, json=body, auth=self.auth, timeout=20, trust_env=False)
        reply.raise_for_status()
        return reply.json() if reply.content else None

    def create(self, name: str) -> dict[str, Any]:
        order = {"name": name, "flavorRef": 1, "volume": {"size": 1}}
        made = self.call("POST", "/instances", {"instance": order})["instance"]
        return {**self.until_active(made["id"]), "password": made["password"]}

    def until_active(self, instance_id: str) -> dict[str, Any]:
        def active() -> dict[str, Any] | None:
            shown: dict[str, Any] = self.call("GET", f"/instances/{instance_id}")["instance"]
            return shown if shown["status"] == "ACTIVE" else None

        found: dict[str, Any] = eventually(active, 30, f"{instance_id} ACTIVE")
        return found

    def openstack(self, *arguments: str) -> Any:
        environment = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(self.state / "clouds.yaml")}
        command = [str(BIN / "openstack"), "--os-cloud", "redkeep", "database", "instance", *arguments]
        return self._client(command, environment)

    def trove(self, *arguments: str) -> str:
        script = f'. "{self.state}/openrc" && exec "{BIN}/trove" "$@"'
        return self._client(["sh", "-c", script, "trove", *arguments], dict(os.environ))

    def _client(self, command: list[str], environment: dict[str, str]) -> str:
        environment = {name: value for name, value in environment.items() if "proxy" not in name.lower()}
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
        assert ran.returncode == 0, f"{command}: {ran.stdout} {ran.stderr}"
        return ran.stdout

    # --- behind the scenes

    def servers(self) -> list[psutil.Process]:
        """The users' redis-servers."""
        return [one for one in self._ours("redis-server") if "/servers/" in (one.info["cwd"] or "")]

    def part(self, name: str) -> psutil.Process:
        """One of the tree."""
        if name == "northbound":
            return next(one for one in self._ours("redis-server") if (one.info["cwd"] or "").endswith("/northbound"))
        return next(one for one in self.children() if one.cmdline()[2:4] == ["redkeep", name])

    def children(self) -> list[psutil.Process]:
        told = ((one, one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))
        return [one for one, words in told if str(self.state) in words and "redkeep" in words]

    def _ours(self, name: str) -> list[psutil.Process]:
        found = psutil.process_iter(["name", "cwd"])
        return [one for one in found if one.info["name"] == name and str(self.state) in (one.info["cwd"] or "")]

    def close(self) -> None:
        for one in (*self.children(), *self._ours("redis-server")):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.reap()

    def reap(self) -> None:
        if self.process is not None:
            self.process.communicate(timeout=10)
            self.process = None


def eventually(holds: Callable[[], Any], limit: float = 20.0, what: str = "") -> Any:
    deadline = time.monotonic() + limit
    while True:
        with contextlib.suppress(httpx.HTTPError, psutil.NoSuchProcess, RedisError, StopIteration):
            if found := holds():
                return found
        assert time.monotonic() < deadline, f"{what or holds} did not come about in {limit:g} s"
        time.sleep(0.05)


@contextlib.contextmanager
def tree() -> Iterator[Tree]:
    with tempfile.TemporaryDirectory(prefix="redkeep-up-") as directory:
        found = Tree(Path(directory) / "state")
        (Path(directory)).chmod(0o700)
        try:
            yield found
        finally:
            found.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Tree]:
    """One tree that the tests of this module share; each leaves it running."""
    with tree() as found:
        found.up()
        yield found


def redis_of(shown: dict[str, Any]) -> Redis:
    found = re.search(r"(\d+\.\d+\.\d+\.\d+):(\d+)", json.dumps(shown))
    port = shown.get("port") or (int(found[2]) if found else 0)
    return Redis(host="127.0.0.1", port=port, password=shown["password"], socket_timeout=2, decode_responses=True)


@pytest.fixture(scope="module")
def database(running: Tree) -> dict[str, Any]:
    """An instance with a key in it."""
    made = running.create("kept")
    address = next(one["address"] for one in json.loads(running.redkeep("status", "--json").stdout)["members"])
    made["port"] = int(address.rsplit(":", 1)[1])
    with redis_of(made) as redis:
        assert redis.set("key", "kept")
    return made


# --- Starting


def test_the_first_start_prints_the_password_once_and_keeps_its_files_private(running: Tree) -> None:
    user, password = running.auth

    assert running.said.count(password) == 1
    assert user in running.said
    assert running.state.stat().st_mode & 0o077 == 0
    for name in ("clouds.yaml", "openrc", "htpasswd", "secret.key", "northbound.sealed", "redkeep.db"):
        assert (running.state / name).stat().st_mode & 0o777 == 0o600, name
    assert password not in running.log


def test_a_second_one_on_the_same_directory_is_refused_in_one_sentence(running: Tree) -> None:
    other = Tree(running.state)

    second = other.popen()
    output, _ = second.communicate(timeout=30)

    assert second.returncode == 1
    assert output == ""
    assert f"another redkeep uses {running.state}" in other.log
    assert "Traceback" not in other.log


@pytest.mark.parametrize("which", ["port", "northbound_port"])
def test_a_port_that_is_taken_is_named_with_the_way_out(running: Tree, which: str) -> None:
    with tree() as other:
        setattr(other, which, getattr(running, which))

        refused = other.popen()
        refused.communicate(timeout=30)

        assert refused.returncode == 1
        assert str(getattr(running, which)) in other.log
        assert "free it, or set" in other.log
        assert "Traceback" not in other.log


# --- The stock clients


@pytest.mark.clients
def test_the_openstack_client_makes_shows_replicates_and_deletes(running: Tree) -> None:
    made = json.loads(running.openstack("create", "os", "--flavor", "1", "--size", "1", "-f", "json"))
    running.until_active(made["id"])
    running.openstack("create", "os-replica", "--replica-of", made["id"], "--flavor", "1", "--size", "1")
    shown = json.loads(running.openstack("show", made["id"], "-f", "json"))
    listed = json.loads(running.openstack("list", "-f", "json"))

    assert shown["name"] == "os"
    replica = next(one for one in listed if one["Name"] == "os-replica")
    running.until_active(replica["ID"])
    for name in (replica["ID"], made["id"]):
        running.openstack("delete", name)
        eventually(partial(_is_gone, running, name), 20, f"{name} deleted")


@pytest.mark.clients
def test_the_trove_client_makes_shows_lists_and_deletes(running: Tree) -> None:
    running.trove("create", "tr", "1", "--size", "1")
    (made,) = [one for one in running.call("GET", "/instances")["instances"] if one["name"] == "tr"]
    running.until_active(made["id"])

    assert made["id"] in running.trove("list")
    assert "ACTIVE" in running.trove("show", made["id"])
    running.trove("delete", made["id"])
    eventually(lambda: _is_gone(running, made["id"]), 20, "it is deleted")


def _is_gone(running: Tree, instance_id: str) -> bool:
    listed = running.call("GET", "/instances")["instances"]
    return instance_id not in [one["id"] for one in listed]


# --- Killing


@pytest.mark.parametrize("name", [*SERVICES, "northbound"])
def test_a_part_that_is_killed_is_started_again_and_no_instance_notices(
    running: Tree, database: dict[str, Any], name: str
) -> None:
    killed, server = running.part(name), running.servers()[0].pid

    killed.kill()

    with redis_of(database) as redis:
        assert redis.set("during", name)
    eventually(lambda: running.part(name).pid != killed.pid, 60, f"another {name}")
    eventually(lambda: running.redkeep("status").returncode == 0, 60, "all is well")
    with redis_of(database) as redis:
        assert redis.get("key") == "kept"
        assert redis.set("after", name)
    assert [one.pid for one in running.servers()] == [server]


def test_what_was_killed_altogether_finds_its_servers_again(running: Tree, database: dict[str, Any]) -> None:
    server = running.servers()[0].pid
    for one in (*running.children(), running.part("northbound")):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    with redis_of(database) as redis:
        assert redis.set("during", "the night")

    said = running.up()

    assert "password:" not in said
    eventually(lambda: running.redkeep("status").returncode == 0, 20, "all is well")
    assert [one.pid for one in running.servers()] == [server]
    with redis_of(database) as redis:
        assert redis.get("key") == "kept"
        assert redis.get("during") == "the night"


def test_when_the_supervisor_alone_is_killed_the_next_start_is_not_in_its_own_way(
    running: Tree, database: dict[str, Any]
) -> None:
    server = running.servers()[0].pid
    assert running.process is not None
    running.process.kill()
    running.process.wait(10)

    running.up()

    eventually(lambda: running.redkeep("status").returncode == 0, 20, "all is well")
    assert [one.pid for one in running.servers()] == [server]
    assert len([one for one in running.children() if one.cmdline()[2:4] == ["redkeep", "api"]]) == 1


# --- Looking


def test_status_says_how_all_is_and_its_exit_status_too(running: Tree, database: dict[str, Any]) -> None:
    well = eventually(lambda: (ran := running.redkeep("status")).returncode == 0 and ran, 20, "all is well")
    assert "kept" in well.stdout
    assert "primary" in well.stdout

    running.servers()[0].suspend()
    try:
        ill = eventually(lambda: (ran := running.redkeep("status")).returncode == 1 and ran, 20, "it is not well")
        assert "hung" in ill.stdout
    finally:
        running.servers()[0].resume()
    eventually(lambda: running.redkeep("status").returncode == 0, 20, "all is well again")


def test_doctor_finds_what_redkeep_needs(running: Tree) -> None:
    examined = running.redkeep("doctor")

    assert examined.returncode == 0, examined.stdout
    for what in ("Python", "redis-server", "state directory", "port of the REST API", "openstack client"):
        assert what in examined.stdout


# --- Stopping


def test_sigterm_ends_it_within_seconds_and_the_servers_go_on(running: Tree, database: dict[str, Any]) -> None:
    took = running.down()

    assert took < 10
    assert running.process is not None
    assert running.process.returncode == 0
    assert not running.children()
    with redis_of(database) as redis:
        assert redis.set("after", "stop")
    assert running.redkeep("status").returncode == 1
    running.up()
    eventually(lambda: running.redkeep("status").returncode == 0, 20, "all is well")
