"""Our driver and its peers behind one face: what an application does with a table and a channel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode

from redkeep.model.topology import Address
from redkeep.northbound import Client, Publisher, Subscriber, Tables, connect
from redkeep.northbound.places import feed_of, place_of

TABLE = "bench"
CHANNEL = "bench"
_HASH = place_of(TABLE, None).entries
_LIVE = feed_of(CHANNEL).live.decode()


class Driver(Protocol):
    """One contestant, connected."""

    async def set(self, key: str, value: str) -> None: ...
    async def get(self, key: str) -> Any: ...
    async def set_many(self, values: dict[str, str]) -> None: ...
    async def get_many(self, keys: list[str]) -> Any: ...
    async def publish(self, data: Any) -> Any: ...

    async def hear(self, callback: Callable[[Any], None]) -> None:
        """Have the callback called with the data of each message of the channel."""
        ...

    async def close(self) -> None: ...


class Ours:
    """The northbound. Publishing also keeps a log, and every message has an id."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tables = Tables(client)
        self._publisher = Publisher(client)
        self._subscriber: Subscriber | None = None
        self.set = lambda key, value: self._tables.set_key(TABLE, key, value)
        self.get = lambda key: self._tables.get_key(TABLE, key)

    @classmethod
    async def open(cls, address: Address, *, cluster: bool) -> Ours:  # noqa: ARG003 (found out by asking)
        return cls(await connect([address]))

    async def set_many(self, values: dict[str, str]) -> None:
        await self._tables.set_keys(TABLE, values)  # type: ignore[arg-type]  # Mapping's key is invariant

    async def get_many(self, keys: list[str]) -> Any:
        return await self._tables.get_keys(TABLE, keys)

    async def publish(self, data: Any) -> Any:
        return await self._publisher.publish(CHANNEL, data)

    async def hear(self, callback: Callable[[Any], None]) -> None:
        self._subscriber = Subscriber(self._client, limit=1_000_000)
        await self._subscriber.subscribe(CHANNEL, lambda message: callback(message.data))

    async def close(self) -> None:
        if self._subscriber is not None:
            await self._subscriber.close()
        await self._client.close()


class RedisPy:
    """redis-py with hiredis, as its documentation has it: same layout in Redis, JSON read in the callback."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._listening: asyncio.Task[None] | None = None
        self.set = lambda key, value: self._client.hset(_HASH, key, value)
        self.get = lambda key: self._client.hget(_HASH, key)

    @classmethod
    async def open(cls, address: Address, *, cluster: bool) -> RedisPy:
        if cluster:
            made = RedisCluster(startup_nodes=[ClusterNode(address.host, address.port)])
            await made.initialize()
            return cls(made)
        return cls(Redis(host=address.host, port=address.port))

    async def set_many(self, values: dict[str, str]) -> None:
        pipe = self._pipeline()
        for key, value in values.items():
            pipe.hset(_HASH, key, value)
        await pipe.execute()

    async def get_many(self, keys: list[str]) -> Any:
        pipe = self._pipeline()
        for key in keys:
            pipe.hget(_HASH, key)
        return await pipe.execute()

    def _pipeline(self) -> Any:
        return self._client.pipeline() if isinstance(self._client, RedisCluster) else self._client.pipeline(False)

    async def publish(self, data: Any) -> Any:
        return await self._client.execute_command("PUBLISH", _LIVE, json.dumps(data))

    async def hear(self, callback: Callable[[Any], None]) -> None:
        client = self._client
        if isinstance(client, RedisCluster):  # its own pub/sub is a plain connection to a node, too
            node = client.get_node_from_key(_LIVE)
            assert node is not None
            client = Redis(host=node.host, port=int(node.port))
        listener = client.pubsub()
        await listener.subscribe(_LIVE)

        async def listen() -> None:
            async for message in listener.listen():
                if message["type"] == "message":
                    callback(json.loads(message["data"])["data"])

        self._listening = asyncio.create_task(listen())

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
        await self._client.aclose()


class Glide:
    """valkey-glide, if it is installed."""

    def __init__(self, client: Any, address: Address, cluster: bool) -> None:
        self._client = client
        self._address = address
        self._cluster = cluster
        self._hearing: Any = None
        self.set = lambda key, value: self._client.hset(_HASH, {key: value})
        self.get = lambda key: self._client.hget(_HASH, key)

    @classmethod
    async def open(cls, address: Address, *, cluster: bool) -> Glide:
        return cls(await _glide(address, cluster, None), address, cluster)

    def _batch(self) -> Any:
        glide: Any = import_module("glide")
        return glide.ClusterBatch(is_atomic=False) if self._cluster else glide.Batch(is_atomic=False)

    async def set_many(self, values: dict[str, str]) -> None:
        batch = self._batch()
        for key, value in values.items():
            batch.hset(_HASH, {key: value})
        await self._client.exec(batch, raise_on_error=True)

    async def get_many(self, keys: list[str]) -> Any:
        batch = self._batch()
        for key in keys:
            batch.hget(_HASH, key)
        return await self._client.exec(batch, raise_on_error=True)

    async def publish(self, data: Any) -> Any:
        return await self._client.publish(json.dumps(data), _LIVE)

    async def hear(self, callback: Callable[[Any], None]) -> None:
        self._hearing = await _glide(
            self._address, self._cluster, lambda message, _: callback(json.loads(message.message)["data"])
        )

    async def close(self) -> None:
        for client in (self._client, self._hearing):
            if client is not None:
                await client.close()


async def _glide(address: Address, cluster: bool, callback: Any) -> Any:
    glide: Any = import_module("glide")
    kind = glide.GlideClusterClientConfiguration if cluster else glide.GlideClientConfiguration
    subscriptions = None
    if callback is not None:
        modes = kind.PubSubChannelModes
        subscriptions = kind.PubSubSubscriptions({modes.Exact: {_LIVE}}, callback, None)
    config = kind([glide.NodeAddress(address.host, address.port)], pubsub_subscriptions=subscriptions)
    return await (glide.GlideClusterClient if cluster else glide.GlideClient).create(config)
