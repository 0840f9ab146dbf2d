"""The twin of the servers for tests of applications: enough of Redis, in memory, for tables and messages.

tables = Tables(MemoryDoor())

It passes their contract suites. `memory_client.py` has the client that subscribers of it need.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from redkeep.decide.routing import Retry
from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.northbound.blocking import finish
from redkeep.northbound.scripts import ALLOCATE, CREATE, DELETE, PUBLISH, SET, UNDO, UNLINK
from redkeep.northbound.wire import Argument, Reply

Hash = dict[bytes, bytes]
Log = list[tuple[bytes, bytes]]
"""Ids and messages."""
Listener = Callable[[bytes, bytes], None]
"""Is given the live channel and what was told; from any thread."""


class MemoryDoor:
    """All tables that share one of these see the same. Its coroutines never wait, so it serves threads, too."""

    sharded = False

    def __init__(self) -> None:
        self._available = True
        self.lost_replies = 0
        """So many of the next commands run, and their replies get lost."""
        self.hashes: defaultdict[bytes, Hash] = defaultdict(dict)
        self.strings: dict[bytes, bytes] = {}
        self.logs: defaultdict[bytes, Log] = defaultdict(list)
        self.told: list[tuple[bytes, str]] = []
        """Live channel and body of each notification."""
        self.listeners: set[Listener] = set()
        self._numbers = 0
        self._one = threading.RLock()
        """As in Redis, one command runs at a time."""
        self._scripts: dict[str, Callable[..., Reply]] = {
            SET.sha: self._set,
            DELETE.sha: self._delete,
            UNLINK.sha: self._unlink,
            CREATE.sha: self._create,
            UNDO.sha: self._undo,
            ALLOCATE.sha: self._allocate,
            PUBLISH.sha: self._publish,
        }

    @property
    def available(self) -> bool:
        """While False nobody reaches it, nor hears of it; what is in it stays."""
        return self._available

    @available.setter
    def available(self, available: bool) -> None:
        self._available = available
        if not available:
            self.cut()

    async def send(
        self,
        slot: int,  # noqa: ARG002 (one server for all)
        args: tuple[Argument, ...],
        *,
        retry: Retry = "if_not_run",
        timeout: float = 0.0,  # noqa: ARG002 (nothing here takes time)
    ) -> Reply:
        if not self.available:
            raise Unavailable("the twin is away")
        reply = self._run(str(args[0]), [one if isinstance(one, bytes) else str(one).encode() for one in args[1:]])
        if self.lost_replies > 0:
            self.lost_replies -= 1
            if retry != "always":
                raise OutcomeUnknown("the reply was lost")
            reply = self._run(str(args[0]), [one if isinstance(one, bytes) else str(one).encode() for one in args[1:]])
        return reply

    async def send_many(
        self,
        slot: int,
        commands: Sequence[tuple[Argument, ...]],
        *,
        retry: Retry = "if_not_run",
        timeout: float = 0.0,
    ) -> list[Reply]:
        return [await self.send(slot, args, retry=retry, timeout=timeout) for args in commands]

    async def send_each(
        self, commands: Sequence[tuple[int, tuple[Argument, ...]]], *, timeout: float = 0.0
    ) -> list[Reply]:
        return [await self.send(slot, args, retry="always", timeout=timeout) for slot, args in commands]

    def in_background(self, work: Callable[[Any], Coroutine[Any, Any, Any]], *, seconds: float) -> None:  # noqa: ARG002
        finish(work(self))

    def cut(self) -> None:
        """Every connection that hears is lost."""
        for listener in list(self.listeners):
            listener(b"", b"")

    def close(self) -> None:
        """What is in it stays, as in a server that a client leaves."""

    def _run(self, command: str, args: list[bytes]) -> Reply:
        with self._one:
            if command == "EVALSHA":
                count = int(args[1])
                return self._scripts[args[0].decode()](args[2 : 2 + count], args[2 + count :])
            if command == "WAIT":
                return 0
            if command.startswith("X"):
                return self._of_logs(command, args[0], args[1:])
            return self._plain(command, args[0], args[1:])

    def _of_logs(self, command: str, key: bytes, args: list[bytes]) -> Reply:
        log = self.logs[key]
        if command == "XLEN":
            return len(log)
        if command == "XTRIM":  # MAXLEN n
            gone = max(0, len(log) - int(args[1]))
            del log[:gone]
            return gone
        if command == "XDEL":
            self.logs[key] = [entry for entry in log if entry[0] not in args]
            return len(log) - len(self.logs[key])
        count = int(args[3])
        if command == "XREVRANGE":  # + - COUNT n
            return [[id_, [b"m", text]] for id_, text in reversed(log[-count:])]
        first = _place(args[0].removeprefix(b"("))
        after = args[0].startswith(b"(")
        found = [entry for entry in log if _place(entry[0]) > first or (not after and _place(entry[0]) == first)]
        return [[id_, [b"m", text]] for id_, text in found[:count]]

    def _plain(self, command: str, key: bytes, args: list[bytes]) -> Reply:
        found = self.hashes[key]
        reads: dict[str, Callable[[], Reply]] = {
            "HGET": lambda: found.get(args[0]),
            "HMGET": lambda: [found.get(one) for one in args],
            "HEXISTS": lambda: int(args[0] in found),
            "HLEN": lambda: len(found),
            "HKEYS": lambda: list(found),
            "HVALS": lambda: list(found.values()),
            "HGETALL": lambda: dict(found),
            "HSCAN": lambda: [b"0", [part for pair in found.items() for part in pair]],
            "EXISTS": lambda: int(bool(found) or key in self.strings),
            "HSET": lambda: self._hset(key, args),
            "HDEL": lambda: sum(found.pop(one, None) is not None for one in args),
            "GET": lambda: self.strings.get(key),
            "SET": lambda: self.strings.update({key: args[0]}),
            "DEL": lambda: self.strings.pop(key, None) and 1,
        }
        return reads[command]()

    def _hset(self, key: bytes, pairs: list[bytes]) -> int:
        before = len(self.hashes[key])
        self.hashes[key].update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(self.hashes[key]) - before

    # --- the scripts, by their names ---------------------------------------------------------------------------------

    def _say(self, keys: list[bytes], args: list[bytes]) -> None:
        if args[0]:
            self.told.append((keys[2], args[0].decode()))
            self._tell(keys[1:4], args)

    def _tell(self, keys: list[bytes], args: list[bytes]) -> bytes:
        log, live, last = keys
        self._numbers += 1
        id_ = b"%d-0" % self._numbers
        self.logs[log].append((id_, args[0]))
        del self.logs[log][: -int(args[1])]
        after, self.strings[last] = self.strings.get(last, b"0-0"), id_
        for listener in list(self.listeners):
            listener(live, b'{"v":1,"id":"%b","after":"%b",%b' % (id_, after, args[0]))
        return id_

    def _publish(self, keys: list[bytes], args: list[bytes]) -> bytes:
        return self._tell(keys, args)

    def _set(self, keys: list[bytes], args: list[bytes]) -> int:
        self._say(keys, args)
        return self._hset(keys[0], args[3:])

    def _delete(self, keys: list[bytes], args: list[bytes]) -> int:
        if self.hashes[keys[0]].pop(args[3], None) is None:
            return 0
        self._say(keys, args)
        return 1

    def _unlink(self, keys: list[bytes], args: list[bytes]) -> int:
        self._say(keys, args)
        return int(bool(self.hashes.pop(keys[0], None)))

    def _create(self, keys: list[bytes], args: list[bytes]) -> int:
        mark = self.strings.get(keys[4])
        if mark is not None:
            return 1 if mark == b"done" else -1
        if args[3] in self.hashes[keys[0]]:
            return 0
        self._hset(keys[0], args[3:5])
        self._say(keys, args)
        self.strings[keys[4]] = b"done"
        return 1

    def _undo(self, keys: list[bytes], args: list[bytes]) -> int:
        mark, self.strings[keys[4]] = self.strings.get(keys[4]), b"undone"
        if mark != b"done" or self.hashes[keys[0]].get(args[3]) != args[4]:
            return 0
        del self.hashes[keys[0]][args[3]]
        self._say(keys, args)
        return 1

    def _allocate(self, keys: list[bytes], args: list[bytes]) -> Any:
        last = max(int(self.hashes[keys[0]].get(args[0], b"0")), int(args[1])) + 1
        self.hashes[keys[0]][args[0]] = b"%d" % last
        return [last, 0]


def _place(id_: bytes) -> tuple[int, int]:
    milliseconds, _, number = id_.partition(b"-")
    return int(milliseconds), int(number or 0)
