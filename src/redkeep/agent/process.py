"""Processes of redis-server: started so that they outlive the agent, recognised without mistake, watched by pidfd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Birth:
    """What tells a process from any other that has, or will have, its number."""

    pid: int
    started: int
    """Clock ticks since boot, from /proc/PID/stat."""


class Gone(Exception):
    """There is no such process (any more)."""


def birth_of(pid: int) -> Birth:
    """Raises Gone."""
    return Birth(pid, int(_stat(pid)[19]))


def is_stopped(pid: int) -> bool:
    """Whether the kernel has stopped it (SIGSTOP, a debugger). False when it is gone."""
    try:
        return _stat(pid)[0] in ("T", "t")
    except Gone:
        return False


def works_in(pid: int, directory: Path) -> bool:
    """Whether its working directory is this one: redis-server's always is its data directory."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == directory.resolve()
    except OSError:
        return False


def servers_in(directory: Path) -> list[int]:
    """Every redis-server that works in a directory: the server, and a child of it that saves."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in numbers if works_in(pid, directory) and _name(pid) == "redis-server"]


async def end_servers_in(directory: Path) -> int:
    """Kill them all and wait until they are gone. Returns how many there were."""
    found = servers_in(directory)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while servers_in(directory):
        await asyncio.sleep(0.005)
    return len(found)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (the state) on; the second may contain anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        raise Gone(pid) from None
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in ("Z", "X"):
        raise Gone(pid)
    return fields


def spawn(program: Path, conf: Path, secret_directives: str, address_space: int) -> int:
    """Start redis-server in a session of its own, so that what ends the agent does not end it. Returns its pid.

    The secrets go over standard input, which redis-server reads after the file: they touch no disk.
    Raises OSError.
    """
    process = subprocess.Popen(
        [program, conf, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=conf.parent,
    )
    process.returncode = 0  # reaped by `Watch`, not by subprocess
    limit_address_space(process.pid, address_space)
    with contextlib.suppress(BrokenPipeError), process.stdin or contextlib.nullcontext() as pipe:
        if pipe:
            pipe.write(secret_directives.encode())
    return process.pid


def limit_address_space(pid: int, limit: int) -> None:
    """The most memory that the process may map, copies for saving included; an allocation beyond fails in it alone."""
    with contextlib.suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_AS)  # stays: without privilege it could not be raised again
        resource.prlimit(pid, resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


class Watch:
    """Calls back, once, within a millisecond of the exit of a process; ours or adopted."""

    def __init__(self, pid: int, on_exit: Callable[[str], None]) -> None:
        """Raises Gone."""
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise Gone(pid) from None
        self.pid = pid
        self._on_exit = on_exit
        self.exited = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._exit)

    def close(self) -> None:
        """Stop watching; the process goes on."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process and no other, even if its number was given away meanwhile."""
        if self._fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def _exit(self) -> None:
        how = _reap(self.pid)
        self.close()
        self.exited.set()
        self._on_exit(how)


def _reap(pid: int) -> str:
    """Collect our own child's status; of an adopted process nobody tells us how it ended."""
    try:
        _, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return "exited"
    code = os.waitstatus_to_exitcode(status)
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
