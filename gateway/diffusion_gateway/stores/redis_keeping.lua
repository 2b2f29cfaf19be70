-- What is kept beside jobs: webhooks that are owed, results that were drawn before, rates.

function ops.take_deliveries(now, until_, limit)
  local found = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'deliveries', '-inf', now, 'LIMIT', 0, limit)) do
    redis.call('ZADD', P .. 'deliveries', until_, id)
    found[#found + 1] = {id, redis.call('HINCRBY', P .. 'delivery_attempts', id, 1)}
  end
  return found
end

function ops.settle_delivery(id, retry_at, untried)
  if retry_at ~= '' then
    redis.call('ZADD', P .. 'deliveries', 'XX', retry_at, id)
    if untried == '1' and redis.call('HEXISTS', P .. 'delivery_attempts', id) == 1 then
      redis.call('HINCRBY', P .. 'delivery_attempts', id, -1)
    end
  else
    redis.call('ZREM', P .. 'deliveries', id)
    redis.call('HDEL', P .. 'delivery_attempts', id)
  end
end

-- Results that were drawn before, and rates.

local function drop(key)
  local result = redis.call('HGET', P .. 'cache', key)
  if result then
    redis.call('HINCRBY', P .. 'counts', 'cache_bytes', -redis.call('HGET', P .. 'cache_sizes', key))
    redis.call('HDEL', P .. 'cache', key)
    redis.call('HDEL', P .. 'cache_sizes', key)
    redis.call('ZREM', P .. 'cache_used', key)
    redis.call('ZREM', P .. 'cache_expires', key)
  end
  return result
end

function ops.cache_get(key, now)
  local expires = redis.call('ZSCORE', P .. 'cache_expires', key)
  if not expires or tonumber(expires) <= tonumber(now) then
    return false
  end
  even_if_full()
  redis.call('ZADD', P .. 'cache_used', 'GT', now, key)
  return redis.call('HGET', P .. 'cache', key)
end

function ops.cache_put(key, result, size, expires, max_bytes, now)
  local gone = {drop(key) or nil}
  if tonumber(size) > tonumber(max_bytes) then
    gone[#gone + 1] = result
    return gone
  end
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', P .. 'cache_expires', '-inf', now)) do
    gone[#gone + 1] = drop(old)
  end
  local room = tonumber(max_bytes) - tonumber(size)
  while tonumber(redis.call('HGET', P .. 'counts', 'cache_bytes') or 0) > room do
    gone[#gone + 1] = drop(redis.call('ZRANGE', P .. 'cache_used', 0, 0)[1])
  end
  redis.call('HSET', P .. 'cache', key, result)
  redis.call('HSET', P .. 'cache_sizes', key, size)
  redis.call('ZADD', P .. 'cache_used', now, key)
  redis.call('ZADD', P .. 'cache_expires', expires, key)
  redis.call('HINCRBY', P .. 'counts', 'cache_bytes', size)
  return gone
end

ops.cache_drop = drop

-- Seconds that gateways' clocks may differ by.
local SKEW = 5

local function keep_bucket(name, full_at, now)
  even_if_full()
  redis.call('SET', name, num(full_at), 'PX', math.ceil((full_at - now) * 1000) + 1)
end

-- A bucket is kept as the moment at which it will be full (the generic cell rate algorithm).
function ops.take_token(bucket, rate, burst, now)
  local name, at = P .. 'bucket:' .. bucket, tonumber(now)
  local known, empty = tonumber(redis.call('GET', name) or 0), at + tonumber(burst) / tonumber(rate)
  if known > empty + SKEW then
    -- A clock was set back: nobody waits until it has caught up.
    known = empty
    keep_bucket(name, known, at)
  end
  local full_at = math.max(known, at) + 1 / tonumber(rate)
  local wait = full_at - empty
  if wait > 1e-9 then
    return num(wait)
  end
  keep_bucket(name, full_at, at)
  return '0'
end
