"""`redkeep up`: everything in one process tree. A supervisor, the control Redis, and one process per service.

The Redis servers of the users are not in this tree: they outlive it, and the next start adopts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from redkeep.bootstrap import control_password, first_start, write_private
from redkeep.config import Config
from redkeep.decide.liveness import restart_pause
from redkeep.errors import Refused, Unavailable
from redkeep.model.topology import Address
from redkeep.northbound.wire import Connection, Login
from redkeep.vault import Vault

log = logging.getLogger(__name__)

SERVICES = ("agent", "manager", "api")
PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""
STOP_LIMIT = 12.0
"""Seconds that a service gets to stop in order before it is killed."""
START_LIMIT = 30.0


@dataclass
class Child:
    """A process that is started again when it ends, unless we are stopping."""

    name: str
    command: Sequence[str | Path]
    stdin: str | None = None
    stdout: int | None = None
    process: asyncio.subprocess.Process | None = None
    stopping: bool = False
    exits_in_a_row: int = field(default=0, init=False)

    async def keep(self) -> None:
        """Run it for ever."""
        while not self.stopping:
            started = time.monotonic()
            await self._run_once()
            if self.stopping:
                return
            self.exits_in_a_row = self.exits_in_a_row + 1 if time.monotonic() - started < 30 else 1
            pause = restart_pause(self.exits_in_a_row)
            log.warning("%s has ended and is started again%s", self.name, f" in {pause:g} s" if pause else "")
            await asyncio.sleep(pause)

    async def _run_once(self) -> None:
        pipe = asyncio.subprocess.PIPE if self.stdin is not None else asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdin=pipe, stdout=self.stdout, start_new_session=True, preexec_fn=_end_with_parent
        )
        if self.stdin is not None and self.process.stdin is not None:
            self.process.stdin.write(self.stdin.encode())
            with contextlib.suppress(ConnectionError):
                await self.process.stdin.drain()
            self.process.stdin.close()
        await self.process.wait()

    async def stop(self) -> None:
        """End it: in order, or else by force."""
        self.stopping = True
        if self.process is None or self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_LIMIT):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


async def up(config: Config, arguments: Sequence[str], *, announce: bool = True) -> None:
    """Serve until SIGINT or SIGTERM. `arguments` are passed on to each service, so that it reads the same settings.

    Raises Refused when another one uses the state directory, or a port is taken.
    """
    config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_one(config.state_dir):
        vault = Vault.open(config.key_file)
        _require_free(config.listen, "api", "port")
        password = first_start(config, vault)
        control = None if config.northbound else _control_redis(config, vault)
        services = [Child(name, [sys.executable, "-m", "redkeep", name, *arguments]) for name in SERVICES]
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        async with _keeping([control] if control else []):
            if control:
                await _until_control_answers(config, vault)
            async with _keeping(services):
                await _until_api_answers(config, stopped)
                if announce and not stopped.is_set():
                    print(welcome(config, password), flush=True)
                await stopped.wait()
                log.info("stopping; the Redis servers go on")


def welcome(config: Config, password: str | None) -> str:
    """What the operator reads once everything runs."""
    lines = [f"Redkeep serves on {config.url}, its state is in {config.state_dir}."]
    if password:
        lines.append(f"Administrator: {config.api.admin_user}, password: {password} (shown this once).")
    return "\n".join(
        (
            *lines,
            "",
            "  With the openstack client:",
            f"    export OS_CLIENT_CONFIG_FILE={config.state_dir / 'clouds.yaml'}",
            "    openstack --os-cloud redkeep database instance list",
            "",
            "  With the trove client:",
            f"    . {config.state_dir / 'openrc'} && trove list",
            "",
            "  What runs, and how it is: redkeep status",
        )
    )


def _end_with_parent() -> None:
    """In the child: the kernel ends it in order when its supervisor is killed, so that the next start finds no ports
    taken. The users' Redis servers are not our children, and go on."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@asynccontextmanager
async def _keeping(children: Sequence[Child]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(child.keep(), name=child.name) for child in children]
    try:
        yield
    finally:
        for child in reversed(children):
            await child.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _only_one(state_dir: Path):  # type: ignore[no-untyped-def]
    with (state_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another redkeep uses {state_dir}: stop it, or choose another --state-dir") from None
        yield


def _require_free(address: Address, group: str, option: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            way_out = f"free it, or set [{group}] {option} in redkeep.conf"
            raise Refused(f"{address} cannot be listened on ({error.strerror}): {way_out}") from None


def _control_redis(config: Config, vault: Vault) -> Child:
    """A small Redis of our own, with everything acknowledged on disk; its password goes over standard input."""
    address = Address("127.0.0.1", config.northbound_port)
    _require_free(address, "northbound", "port")
    program = next(iter(config.agent.programs.values()), None)
    if program is None:
        raise Refused("there is no redis-server on this machine: `redkeep doctor` says how to get one")
    directory = config.state_dir / "northbound"
    directory.mkdir(exist_ok=True, mode=0o700)
    conf = (
        f'bind 127.0.0.1\nport {address.port}\ndir "{directory}"\nlogfile "{directory / "redis.log"}"\n'
        'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\nalways-show-logo no\n'
    )
    write_private(directory / "redis.conf", conf)
    secret = f"requirepass {control_password(config, vault)}\n"
    return Child(
        "northbound", [program, directory / "redis.conf", "-"], stdin=secret, stdout=asyncio.subprocess.DEVNULL
    )


async def _until_control_answers(config: Config, vault: Vault) -> None:
    login = Login(None, control_password(config, vault), "redkeep-up")
    deadline = time.monotonic() + START_LIMIT
    while True:
        try:
            connection = await Connection.open(Address("127.0.0.1", config.northbound_port), login)
        except Unavailable:
            if time.monotonic() > deadline:
                log_file = config.state_dir / "northbound" / "redis.log"
                raise Refused(f"the control Redis does not start; see {log_file}") from None
            await asyncio.sleep(0.02)
        else:
            connection.abort()
            return


async def _until_api_answers(config: Config, stopped: asyncio.Event) -> None:
    deadline = time.monotonic() + START_LIMIT
    async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
        while not stopped.is_set():
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"http://{config.listen}/healthz")).is_success:
                    return
            if time.monotonic() > deadline:
                raise Refused("the API does not answer; the messages above say why")
            await asyncio.sleep(0.05)
