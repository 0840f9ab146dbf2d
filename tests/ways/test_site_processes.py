"""Managers as processes of their own, with a vendor's driver that was installed beside Redkeep, over a real northbound.

The one that fails over is killed in the middle, another one finishes, and the killed one learns it when it starts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from redkeep.testing.servers import RedisProcess, free_port

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

DRIVER = '''
import asyncio
from pathlib import Path

from redkeep.backends.base import BaseDriver
from redkeep.model.site import FailoverResult


class Shelf(BaseDriver):
    """A storage of three files: what happened, where it is active, and whether a failover may get through."""

    SUPPORTS_ACTIVE_ACTIVE = True
    here = Path(__file__).parent

    def __init__(self, context):
        super().__init__(context)
        self.say(f"made {context.active_backend_id}")

    def say(self, what):
        with (self.here / "happened").open("a") as file:
            file.write(f"{self.context.manager} {what}\\n")

    async def failover(self, volumes, secondary_id, *, forced):
        self.say(f"begins {secondary_id}")
        while not (self.here / "go").exists():
            await asyncio.sleep(0.02)
        (self.here / "active").write_text(secondary_id)
        return FailoverResult(secondary_id)

    async def failover_completed(self, active_backend_id):
        self.say(f"completed {active_backend_id}")


class Old(BaseDriver):
    """It cannot be used by two."""
'''
SETTINGS = """
[northbound]
url = redis://{northbound}
[api]
auth = noauth
port = {port}
[backend]
driver = shelf
replication_device = backend_id:dr1
[manager]
lease = 1
look_interval = 0.2
report_interval = 0.2
service_down_time = 5
"""


@dataclass
class Machine:
    """A state directory, and what runs on it."""

    directory: Path
    control: RedisProcess
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def prepare(self) -> None:
        facts = self.directory / "shelf-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text("[redkeep.backends]\nshelf = shelf:Shelf\nold = shelf:Old\n")
        (self.directory / "shelf.py").write_text(DRIVER)
        text = SETTINGS.format(northbound=self.control.address, port=self.port)
        (self.directory / "redkeep.conf").write_text(text)
        self.command("init", "--state-dir", str(self.directory))

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.directory)}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "redkeep", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)

    def start(self, name: str) -> None:
        """The API, or a manager of that name."""
        verb = ("api",) if name == "api" else ("manager", "--override", f"manager.name={name}")
        command = [sys.executable, "-m", "redkeep", verb[0], "--state-dir", str(self.directory), *verb[1:]]
        with (self.directory / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def happened(self) -> list[str]:
        file = self.directory / "happened"
        return file.read_text().splitlines() if file.exists() else []

    def get(self, path: str) -> Any:
        headers = {"OpenStack-API-Version": "volume 3.26"}
        return httpx.get(f"http://127.0.0.1:{self.port}/v3{path}", headers=headers, timeout=30, trust_env=False).json()

    def put(self, verb: str, body: dict[str, Any]) -> httpx.Response:
        url, headers = f"http://127.0.0.1:{self.port}/v3/os-services/{verb}", {"OpenStack-API-Version": "volume 3.26"}
        return httpx.put(url, json=body, headers=headers, timeout=60, trust_env=False)

    def until(self, holds: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if found := holds():
                    return found
            assert time.monotonic() < deadline, f"{what} did not come about: {self.happened()} {self.logs()}"
            time.sleep(0.1)

    def up(self) -> list[str]:
        return [one["host"] for one in self.get("/os-services")["services"] if one["state"] == "up"]

    def following(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.get("/clusters/managers")["cluster"]
        return {**shown, **shown["redkeep:failover"]}

    def logs(self) -> str:
        return "".join(f"\n--- {file.name}\n{file.read_text()[-2000:]}" for file in self.directory.glob("*.log"))

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.control.close()


@pytest.fixture
def machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="redkeep-test-", ignore_cleanup_errors=True) as directory:
        found = Machine(Path(directory), RedisProcess("appendonly yes").start())
        try:
            found.prepare()
            yield found
        finally:
            found.close()


def test_the_doer_is_killed_another_one_finishes_and_the_dead_one_learns_it_at_its_start(machine: Machine) -> None:
    for name in ("api", "m1", "m2", "m3"):
        machine.start(name)
    machine.until(lambda: machine.up() == ["m1@redis", "m2@redis", "m3@redis"], "three managers")

    assert machine.put("failover", {"cluster": "managers", "backend_id": "dr1"}).status_code == 202
    (begun,) = machine.until(lambda: [line for line in machine.happened() if "begins" in line], "the driver's call")
    doer = begun.split()[0]
    machine.kill(doer)
    (machine.directory / "go").touch()

    machine.until(lambda: machine.following()["followed"] == 2 and machine.following()["epoch"] == 1, "two that follow")
    half = machine.following()
    status = machine.command("status", "--state-dir", str(machine.directory)).stdout
    machine.start(doer)
    machine.until(lambda: machine.following()["followed"] == 3, "all that follow")

    others = {"m1", "m2", "m3"} - {doer}
    happened = machine.happened()
    assert (half["replication_status"], half["active_backend_id"]) == ("failed-over", "dr1")
    assert half["missing"] == [f"{doer}@redis"]
    assert f"2 of 3 managers have followed (missing: {doer}@redis)" in " ".join(status.split())
    assert next(line for line in happened if "begins" in line) == begun
    assert {line.split()[0] for line in happened if line.endswith("begins dr1")} > {doer}
    assert {line.split()[0] for line in happened if line.endswith("completed dr1")} == others
    assert happened[-1] == f"{doer} made dr1", "it learned at its start, and had nothing to follow"
    assert (machine.directory / "active").read_text() == "dr1"


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("backend.driver=old", "Active-Active configuration is not currently supported by driver Old."),
        ("backend.driver=none", "there is no such driver; there are old, plain, redis_sites, shelf"),
        ("backend.driver=plain", "Driver doesn't support clustered replication."),
    ],
)
def test_a_manager_that_must_not_start_says_why_and_ends(machine: Machine, override: str, reason: str) -> None:
    arguments = ("--state-dir", str(machine.directory), "--override", "manager.name=m1", "--override", override)

    done = machine.command("manager", *arguments)

    assert done.returncode == 1
    assert reason in done.stderr
    assert json.dumps(done.stderr).count("Traceback") == 0
