"""A private PostgreSQL server for tests: its own directory, a Unix socket alone, gone with the block.

It is run with durability off: what a test asks is whether Redkeep is right, not whether PostgreSQL keeps its word.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

_FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}
"""What was committed outlives the server all the same, only not the machine."""


@dataclass(slots=True)
class Postgres:
    """A running server. Everybody who reaches its socket is its superuser."""

    directory: Path
    _server: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Killed as a whole, as by a crash, and started again at the end of the block with all that was committed."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def stop(self) -> None:
        """At once: no goodbye to anybody."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)  # an immediate shutdown, which kills its children too
            self._server.wait(20)

    def start(self) -> None:
        """Raises RuntimeError when it does not come up."""
        programs, user = find_postgres(), _unprivileged()
        uid, gid, others = (user.pw_uid, user.pw_gid, ()) if user else (None, None, None)
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.directory)} | _FAST
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = self.directory / "log"
        with log.open("ab") as output:
            self._server = subprocess.Popen(
                [(programs or Path()) / "postgres", "-D", self.directory / "data", *options],
                stdout=output,
                stderr=output,
                cwd=self.directory,
                user=uid,
                group=gid,
                extra_groups=others,
            )
        _wait_until_ready(self._server, self, log)

    def url(self, database: str = "postgres", *, schema: str = "public") -> str:
        """As `open_store` wants it."""
        return f"postgresql+psycopg://redkeep@/{database}?host={self.directory}&options=-csearch_path={schema}"

    def new_url(self) -> str:
        """Of a new, empty schema. It serves as well as a database of its own, which is a thousand files and takes forty
        times as long."""
        schema = f"t{uuid.uuid4().hex}"
        self.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        return self.url(schema=schema)

    def hang_up(self) -> None:
        """End every connection but our own."""
        others = "FROM pg_stat_activity WHERE usename = 'redkeep' AND pid <> pg_backend_pid()"
        self.execute(sql.SQL("SELECT pg_terminate_backend(pid) " + others))

    def execute(self, statement: sql.Composed | sql.SQL) -> None:
        """One statement of its own, in no transaction."""
        with self.connect() as connection:
            connection.execute(statement)

    def connect(self) -> psycopg.Connection[TupleRow]:
        """A blocking connection of psycopg that commits every statement."""
        return psycopg.connect(host=str(self.directory), user="redkeep", dbname="postgres", autocommit=True)


def find_postgres() -> Path | None:
    """The directory of `initdb` and `postgres`: of the PATH, else the newest that Debian installed, else None."""
    on_path = shutil.which("initdb")
    candidates = [Path(on_path).parent] if on_path else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major_version, reverse=True)
    return next((d for d in candidates if (d / "initdb").exists() and (d / "postgres").exists()), None)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server for the length of the block. Raises RuntimeError when none is installed or it does not start."""
    programs = find_postgres()
    if programs is None:
        raise RuntimeError("no PostgreSQL server is installed: neither initdb on the PATH nor /usr/lib/postgresql")
    directory = Path(tempfile.mkdtemp(prefix="redkeep-pg-"))  # short: a socket's path has 107 characters at most
    try:
        user = _unprivileged()
        if user is not None:
            os.chown(directory, user.pw_uid, user.pw_gid)
        _make(programs, directory, user)
        found = Postgres(directory)
        try:
            found.start()
            yield found
        finally:
            found.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _make(programs: Path, directory: Path, user: pwd.struct_passwd | None) -> None:
    uid, gid, others = (user.pw_uid, user.pw_gid, ()) if user else (None, None, None)
    initdb: list[str | Path] = [
        programs / "initdb",
        "-D",
        directory / "data",
        "-U",
        "redkeep",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-locale",
        "--no-sync",
    ]
    made = subprocess.run(
        initdb, capture_output=True, text=True, check=False, cwd=directory, user=uid, group=gid, extra_groups=others
    )
    if made.returncode != 0:
        raise RuntimeError(f"initdb failed: {made.stderr[-500:]}")


def _wait_until_ready(server: subprocess.Popen[bytes], postgres: Postgres, log: Path) -> None:
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(psycopg.OperationalError):
            postgres.connect().close()
            return
        time.sleep(0.02)
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text()[-500:]}")


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom to run as when we are root, which PostgreSQL refuses to be; None to run as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")


def _major_version(directory: Path) -> int:
    name = directory.parent.name
    return int(name) if name.isdigit() else 0
