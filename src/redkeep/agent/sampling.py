"""Digests of some keys of a server: the same for the same values, whatever Redis version or encoding they are in.

Computed inside of Redis, so that no value leaves it, and names may be any bytes. What is longer than `MOST_ELEMENTS`
counts by its length alone: the server answers nobody else meanwhile.
"""

from __future__ import annotations

from redkeep.agent.server import Server
from redkeep.model.orders import SampleKeys
from redkeep.redis.admin import Admin

MOST_ELEMENTS = 5000

_SCRIPT = """
local function hex(s) return (s:gsub('.', function(c) return string.format('%02x', c:byte()) end)) end
local function raw(s) return (s:gsub('..', function(h) return string.char(tonumber(h, 16)) end)) end
local function joined(list)
  local out = {}
  for i, v in ipairs(list) do
    if type(v) == 'table' then v = joined(v) end
    out[i] = #v .. ':' .. v
  end
  return table.concat(out)
end
local function pairs_of(list)
  local out = {}
  for i = 1, #list, 2 do out[#out + 1] = joined({list[i], list[i + 1]}) end
  table.sort(out)
  return out
end
local most = tonumber(ARGV[1])
local sizes = {string = 'STRLEN', list = 'LLEN', set = 'SCARD', zset = 'ZCARD', hash = 'HLEN', stream = 'XLEN'}
local function value(kind, key)
  if kind == 'string' then return redis.call('GET', key) end
  if kind == 'list' then return joined(redis.call('LRANGE', key, 0, -1)) end
  if kind == 'set' then local m = redis.call('SMEMBERS', key); table.sort(m); return joined(m) end
  if kind == 'zset' then return joined(redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')) end
  if kind == 'hash' then return joined(pairs_of(redis.call('HGETALL', key))) end
  if kind == 'stream' then return joined(redis.call('XRANGE', key, '-', '+')) end
  return ''
end
local function digest(key)
  local kind = redis.call('TYPE', key)['ok']
  if kind == 'none' then return 'none' end
  local size = sizes[kind] and redis.call(sizes[kind], key) or 0
  if kind ~= 'string' and size > most then return kind .. ':' .. size end
  return kind .. ':' .. redis.sha1hex(value(kind, key))
end
local found, asked = {}, {}
if ARGV[2] == '' then
  for _ = 1, tonumber(ARGV[3]) do
    local key = redis.call('RANDOMKEY')
    if key then asked[key] = true end
  end
else
  for part in ARGV[2]:gmatch('[^ ]+') do asked[raw(part)] = true end
end
for key in pairs(asked) do
  found[#found + 1] = hex(key)
  found[#found + 1] = digest(key)
end
return found
"""


async def sample(server: Server, order: SampleKeys) -> tuple[tuple[str, str], ...]:
    """Key (in hexadecimal) and digest of each. Raises what the server raises."""
    server.replication.require_open()
    return await sample_of(server.admin, order.keys, order.count)


async def sample_of(admin: Admin, keys: tuple[str, ...], count: int) -> tuple[tuple[str, str], ...]:
    """As above."""
    (said,) = await admin.run(("EVAL", _SCRIPT, 0, MOST_ELEMENTS, " ".join(keys), count))
    words = [str(word) for word in said]
    return tuple(sorted(zip(words[::2], words[1::2], strict=True)))
