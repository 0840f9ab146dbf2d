"""The twin of the servers for tests of applications: enough of Redis, in memory, for tables. It passes their suite.

tables = Tables(MemoryDoor())
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from redkeep.decide.routing import Retry
from redkeep.errors import OutcomeUnknown, Unavailable
from redkeep.northbound.blocking import finish
from redkeep.northbound.scripts import ALLOCATE, CREATE, DELETE, SET, UNDO, UNLINK
from redkeep.northbound.wire import Argument, Reply

Hash = dict[bytes, bytes]


class MemoryDoor:
    """All tables that share one of these see the same. Its coroutines never wait, so it serves threads, too."""

    sharded = False

    def __init__(self) -> None:
        self.available = True
        self.lost_replies = 0
        """So many of the next commands run, and their replies get lost."""
        self.hashes: defaultdict[bytes, Hash] = defaultdict(dict)
        self.strings: dict[bytes, bytes] = {}
        self.told: list[tuple[bytes, str]] = []
        """Live channel and body of each notification."""
        self._scripts: dict[str, Callable[..., Reply]] = {
            SET.sha: self._set,
            DELETE.sha: self._delete,
            UNLINK.sha: self._unlink,
            CREATE.sha: self._create,
            UNDO.sha: self._undo,
            ALLOCATE.sha: self._allocate,
        }

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

    def _run(self, command: str, args: list[bytes]) -> Reply:
        if command == "EVALSHA":
            count = int(args[1])
            return self._scripts[args[0].decode()](args[2 : 2 + count], args[2 + count :])
        if command == "WAIT":
            return 0
        return self._plain(command, args[0], args[1:])

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
