"""What runs inside of Redis: each changes all that belongs together, or nothing, and touches one slot."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any, Protocol

from redkeep.decide.routing import Retry
from redkeep.northbound.wire import Argument, Reply, ServerError


class Door(Protocol):
    """The way to the servers: a client, or a blocking face of it whose coroutines never wait."""

    @property
    def sharded(self) -> bool: ...

    async def send(
        self, slot: int, args: tuple[Argument, ...], *, retry: Retry = ..., timeout: float = ...
    ) -> Reply: ...

    async def send_many(
        self, slot: int, commands: list[tuple[Argument, ...]], *, retry: Retry = ..., timeout: float = ...
    ) -> list[Reply]: ...

    async def send_each(self, commands: list[tuple[int, tuple[Argument, ...]]], *, timeout: float = ...) -> list[Reply]:
        """Reads, each on its own slot; all replies, or the first error."""
        ...

    def in_background(self, work: Callable[[Door], Coroutine[Any, Any, Any]], *, seconds: float) -> None:
        """Have it tried until it succeeds, or for so long."""
        ...


@dataclass(frozen=True)
class Script:
    """Lua, called by its hash; sent in full only to a server that has not seen it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", sha1(self.text.encode(), usedforsecurity=False).hexdigest())

    def by_hash(self, keys: tuple[bytes, ...], *args: Argument) -> tuple[Argument, ...]:
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    async def run(
        self, door: Door, slot: int, keys: tuple[bytes, ...], *args: Argument, retry: Retry, timeout: float
    ) -> Reply:
        """Raises as `Client.execute` does."""
        try:
            return await door.send(slot, self.by_hash(keys, *args), retry=retry, timeout=timeout)
        except ServerError as error:
            if error.code != "NOSCRIPT":
                raise
        return await door.send(slot, ("EVAL", self.text, len(keys), *keys, *args), retry=retry, timeout=timeout)


_TELL = """
local function tell(log, live, last, body, kept, publish)
  if body == '' then return false end
  local id = redis.call('XADD', log, 'MAXLEN', '~', kept, '*', 'm', body)
  local after = redis.call('GETSET', last, id) or '0-0'
  redis.call(publish, live, '{"v":1,"id":"' .. id .. '","after":"' .. after .. '",' .. body)
  return id
end
"""
# KEYS ..., log, live, last; ARGV ..., body (or '' for silence), kept, publish

PUBLISH = Script(_TELL + "return tell(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[3])")

SET = Script(
    _TELL
    + """
local new = 0
for n = 4, #ARGV, 2 do new = new + redis.call('HSET', KEYS[1], ARGV[n], ARGV[n + 1]) end
tell(KEYS[2], KEYS[3], KEYS[4], ARGV[1], ARGV[2], ARGV[3])
return new
"""
)

DELETE = Script(
    _TELL
    + """
if redis.call('HDEL', KEYS[1], ARGV[4]) == 0 then return 0 end
tell(KEYS[2], KEYS[3], KEYS[4], ARGV[1], ARGV[2], ARGV[3])
return 1
"""
)

UNLINK = Script(
    _TELL + "tell(KEYS[2], KEYS[3], KEYS[4], ARGV[1], ARGV[2], ARGV[3]); return redis.call('UNLINK', KEYS[1])"
)

# A mark, gone after a minute, says what became of this very call: 'done', or 'undone' so that it can never run later.
# Returns 1 when it ran (now, or in an earlier attempt), 0 when the key was there before, -1 when it was taken back.
CREATE = Script(
    _TELL
    + """
local mark = redis.call('GET', KEYS[5])
if mark == 'undone' then return -1 end
if mark then return 1 end
if redis.call('HSETNX', KEYS[1], ARGV[4], ARGV[5]) == 0 then return 0 end
tell(KEYS[2], KEYS[3], KEYS[4], ARGV[1], ARGV[2], ARGV[3])
redis.call('SET', KEYS[5], 'done', 'PX', ARGV[6])
return 1
"""
)

# Deletes what that call created, unless somebody has written over it since.
UNDO = Script(
    _TELL
    + """
local mark = redis.call('GET', KEYS[5])
redis.call('SET', KEYS[5], 'undone', 'PX', ARGV[6])
if mark ~= 'done' or redis.call('HGET', KEYS[1], ARGV[4]) ~= ARGV[5] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[4])
tell(KEYS[2], KEYS[3], KEYS[4], ARGV[1], ARGV[2], ARGV[3])
return 1
"""
)

# The next id is above the stored one and above all that the caller has seen. A server with another replication history
# than the one that gave out the last may have missed some: then a block is skipped.
# Returns the id, and how many replicas there are to confirm it.
ALLOCATE = Script(
    """
local info = redis.call('INFO', 'replication')
local history = string.match(info, 'master_replid:(%w+)')
local replicas = tonumber(string.match(info, 'connected_slaves:(%d+)'))
local last = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
local before = redis.call('HGET', KEYS[2], ARGV[1])
if before ~= history then
  redis.call('HSET', KEYS[2], ARGV[1], history)
  if before then last = last + tonumber(ARGV[3]) end
end
last = math.max(last, tonumber(ARGV[2])) + 1
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', last))
return {last, replicas}
"""
)

# Entries with what decides about them, and the digests, in step. ARGV after the telling, eight for each item:
# put|drop, which of KEYS holds the leaf, leaf, key, value, version, mark, owner. Returns how many were turned down.
MIRROR = Script(
    _TELL
    + """
local refused = 0
for n = 4, #ARGV, 8 do
  local leaf, key = KEYS[tonumber(ARGV[n + 1])], ARGV[n + 3]
  local version, mark = tonumber(ARGV[n + 5]), tonumber(ARGV[n + 6])
  local old, was, step = redis.call('HGET', leaf, key), 0, 0
  local newer = true
  if old then
    local v, m, o = string.match(old, '^(%d+) (%d+) (.*)$')
    v, was = tonumber(v), tonumber(m)
    if ARGV[n] == 'put' then
      newer = version > v or (version == v and (ARGV[n + 7] > o or (ARGV[n + 7] == o and mark > was)))
      if version == v and o == ARGV[n + 7] and mark == was then refused = refused - 1 end
    else
      newer = version >= v
    end
  end
  if not newer then
    refused = refused + 1
  elseif ARGV[n] == 'put' then
    redis.call('HSET', KEYS[1], key, ARGV[n + 4])
    redis.call('HSET', leaf, key, ARGV[n + 5] .. ' ' .. ARGV[n + 6] .. ' ' .. ARGV[n + 7])
    step = mark - was
  elseif old then
    redis.call('HDEL', KEYS[1], key)
    redis.call('HDEL', leaf, key)
    step = -was
  end
  if step ~= 0 then
    redis.call('HINCRBY', KEYS[5], ARGV[n + 2], string.format('%d', step))
    redis.call('HINCRBY', KEYS[5], '-1', string.format('%d', step))
  end
end
tell(KEYS[2], KEYS[3], KEYS[4], ARGV[1], ARGV[2], ARGV[3])
return refused
"""
)

# Who leads for so many milliseconds: the caller, if nobody does or it is the one. Returns 1 or 0.
LEAD = Script(
    """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
)

# Store what was announced; a new generation if what makes one differs. Returns the generation. If even that was lost it
# starts from what the caller says: generations only rise.
ANNOUNCE = Script(
    """
if redis.call('HGET', KEYS[1], 'cause') ~= ARGV[1] then
  local last = tonumber(redis.call('HGET', KEYS[1], 'generation') or ARGV[4])
  redis.call('HSET', KEYS[1], 'generation', string.format('%d', last + 1))
end
redis.call('HSET', KEYS[1], 'cause', ARGV[1], 'digest', ARGV[2], 'view', ARGV[3])
return tonumber(redis.call('HGET', KEYS[1], 'generation'))
"""
)

# The first of many hints within so many milliseconds is passed on, the others are not.
HINT = Script(
    """
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
redis.call('PUBLISH', ARGV[3], ARGV[1])
return 1
"""
)
