"""Administration of one redis-server: typed commands, and one border for redis-py's errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from redkeep.decide.durability import MAX_LAG_SECONDS
from redkeep.decide.fencing import GUARD_LAG
from redkeep.errors import NotNow, OutcomeUnknown, Refused, Unavailable
from redkeep.model.topology import Address
from redkeep.redis.conf import ADMIN, FENCE, HA_CHANNEL

Command = tuple[str | int | bytes, ...]


class Admin:
    """The agent's way to one of its servers. All calls raise Unavailable, OutcomeUnknown, NotNow (still
    loading) or Refused (the server's own words)."""

    def __init__(self, address: Address, password: str, *, timeout: float = 2.0, user: str = ADMIN) -> None:
        self._redis = Redis(
            host=address.host,
            port=address.port,
            username=user,
            password=password,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,  # with 3, redis-py 8 hands out connections that the server has closed
            decode_responses=True,
            client_name="redkeep-agent",
            health_check_interval=0,
        )
        self._address = address

    async def close(self) -> None:
        await self._redis.aclose()

    async def ping(self) -> None:
        async with _border(self._address):
            await self._redis.ping()

    async def info(self, *sections: str) -> Mapping[str, Any]:
        """INFO; without sections, all of the default ones."""
        async with _border(self._address):
            if len(sections) <= 1:
                return dict(await self._redis.info(*sections))
            async with self._redis.pipeline(transaction=False) as pipe:
                for section in sections:
                    pipe.info(section)
                return {name: value for part in await pipe.execute() for name, value in part.items()}

    async def run(self, *commands: Command) -> list[Any]:
        """Several commands in one round trip; raises for the first that the server refused, all having been sent."""
        async with _border(self._address), self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(await pipe.execute())


class Pipe:
    """A connection of its own to a server, for keys and values: any bytes, many commands in one trip."""

    def __init__(self, address: Address, password: str, *, timeout: float = 10.0) -> None:
        self._address = address
        self._connection = Connection(
            host=address.host,
            port=address.port,
            username=ADMIN,
            password=password,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            client_name="redkeep-agent-pipe",
        )

    async def __aenter__(self) -> Self:
        async with _border(self._address):
            await self._connection.connect()  # type: ignore[no-untyped-call]
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(RedisError, OSError):
            await self._connection.disconnect()

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """The replies in order; what the server refused is there as its words, a ResponseError. Raises Unavailable or
        OutcomeUnknown when the connection is lost on the way."""
        if not commands:
            return []
        async with _border(self._address):
            await self._connection.send_packed_command(self._connection.pack_commands(commands))
            return [await self._reply() for _ in commands]

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error


@asynccontextmanager
async def _border(address: Address) -> AsyncIterator[None]:
    """The errors of redis-py, as ours."""
    try:
        yield
    except BusyLoadingError as error:
        raise NotNow(f"the server on {address} is still loading its data") from error
    except AuthenticationError as error:
        raise Refused(f"the server on {address} is not one of this installation's", kind="conflict") from error
    except RedisTimeoutError as error:
        raise OutcomeUnknown(f"the server on {address} did not answer in time") from error
    except RedisConnectionError as error:
        if "connecting to" in str(error):  # redis-py's words for a connection that never came about
            raise Unavailable(f"the server on {address} cannot be reached: {error}") from error
        raise OutcomeUnknown(f"the connection to {address} was lost: {error}") from error
    except ResponseError as error:
        raise Refused(f"the server on {address} said: {error}", kind="conflict") from error
    except RedisError as error:
        raise OutcomeUnknown(f"the server on {address}: {error}") from error


# --- Words: what is said to a server. Data, so that several go out in one round trip. --------------------------------


def open_writes(min_replicas: int, max_lag: int = MAX_LAG_SECONDS) -> Sequence[Command]:
    """Writes are accepted, as long as that many replicas have acknowledged no longer than `max_lag` seconds ago."""
    return (
        ("CONFIG", "SET", "min-replicas-max-lag", max_lag),
        ("CONFIG", "SET", "min-replicas-to-write", min_replicas),
        ("CONFIG", "SET", "repl-ping-replica-period", 1),
        ("CLIENT", "UNPAUSE"),
    )


REPLICATION: Command = ("INFO", "replication")
"""Its place is behind the commands whose effect it shows, in the same round trip."""

_FOREVER_MS = 24 * 3600 * 1000


def hold_writes() -> Sequence[Command]:
    """Writers wait until somebody says otherwise: not even the death of its agent opens a held primary.

    No `min-replicas-to-write` yet, which would refuse them at once. The pings to replicas stop as well: they would move
    the offset after it was read, and cost the old primary its partial resynchronisation.
    """
    return (("CLIENT", "PAUSE", _FOREVER_MS, "WRITE"), ("CONFIG", "SET", "repl-ping-replica-period", 3600))


def refuse_held(version: str) -> Sequence[Command]:
    """Writers of a held primary have waited for long enough: refuse them.

    Before 7.0 `min-replicas-to-write` lets scripts through, so there the pause has to stay, and writers wait.
    """
    refuse: Command = ("CONFIG", "SET", "min-replicas-to-write", FENCE)
    return (refuse,) if _scripts_slip_through(version) else (refuse, ("CLIENT", "UNPAUSE"))


MIN_REPLICAS: Command = ("CONFIG", "GET", "min-replicas-to-write")


MAX_LAG: Command = ("CONFIG", "GET", "min-replicas-max-lag")


def is_guarded(answer: Mapping[str, str] | Sequence[str]) -> bool:
    """Whether the answer to `MAX_LAG` says that the server watches its replicas more closely than any promise asks."""
    value = answer["min-replicas-max-lag"] if isinstance(answer, Mapping) else answer[1]
    return int(value) == GUARD_LAG


def is_fenced(answer: Mapping[str, str] | Sequence[str]) -> bool:
    """Whether the answer to `MIN_REPLICAS` says that writes are refused by order."""
    value = answer["min-replicas-to-write"] if isinstance(answer, Mapping) else answer[1]
    return int(value) == FENCE


def fence(version: str) -> Sequence[Command]:
    """Every write is refused from now on."""
    refuse: Command = ("CONFIG", "SET", "min-replicas-to-write", FENCE)
    return (refuse, ("CLIENT", "PAUSE", _FOREVER_MS, "WRITE")) if _scripts_slip_through(version) else (refuse,)


GATHER_LIMIT = 3
"""Seconds that a primary waits for the last of the replicas that are on their way to it."""


def await_replicas(count: int, version: str) -> Sequence[Command]:
    """So many get one data set between them, sent as soon as the last has asked for it, and not compressed.

    Compressing costs more time than it saves wherever the network is faster than a hundred MB a second. Before 7.0
    nobody can say how many will come: there a second is waited for the others.
    """
    shared = _set_sync(GATHER_LIMIT if count > 1 else 0, count) if _counts_replicas(version) else _set_sync(count > 1)
    return (*shared, ("CONFIG", "SET", "rdbcompression", "no"))


def await_nobody(delay: int, compression: str, version: str) -> Sequence[Command]:
    """Synchronisations are as configured."""
    usual = _set_sync(delay, 0) if _counts_replicas(version) else _set_sync(delay)
    return (*usual, ("CONFIG", "SET", "rdbcompression", compression))


def _set_sync(delay: int, most: int | None = None) -> Sequence[Command]:
    counted: Sequence[Command] = () if most is None else (("CONFIG", "SET", "repl-diskless-sync-max-replicas", most),)
    return (*counted, ("CONFIG", "SET", "repl-diskless-sync-delay", int(delay)))


def _counts_replicas(version: str) -> bool:
    return int(version.split(".", maxsplit=1)[0]) >= 7


def become_primary() -> Command:
    return ("REPLICAOF", "NO", "ONE")


def become_replica(primary: Address) -> Command:
    return ("REPLICAOF", primary.host, primary.port)


def tell_clients(news: str) -> Command:
    return ("PUBLISH", HA_CHANNEL, news)


def _scripts_slip_through(version: str) -> bool:
    return int(version.split(".", maxsplit=1)[0]) < 7
