-- The life of a job: arriving, leased, ending, following.
--
-- job:ID is a hash of short fields; asked:ID, outcome:ID (result or error) and checkpoint:ID are
-- JSON that only the gateway reads.

local function view(id)
  local texts = redis.call('MGET', P .. 'asked:' .. id, P .. 'outcome:' .. id, P .. 'checkpoint:' .. id)
  return {redis.call('HGETALL', P .. 'job:' .. id), texts[1], texts[2], texts[3]}
end

local function views(ids)
  local found = {}
  for i = 1, #ids do
    found[i] = view(ids[i])
  end
  return found
end

local function set_status(id, it, status)
  redis.call('ZREM', P .. 'of:' .. it.tenant .. ':' .. it.status, id)
  redis.call('ZADD', P .. 'of:' .. it.tenant .. ':' .. status, 0, id)
  redis.call('HINCRBY', P .. 'counts', it.status, -1)
  redis.call('HINCRBY', P .. 'counts', status, 1)
  redis.call('HSET', P .. 'job:' .. id, 'status', status)
  if it.deadline and status == 'pending' then
    redis.call('ZADD', P .. 'deadlines', it.deadline, id)
  elseif it.deadline then
    redis.call('ZREM', P .. 'deadlines', id)
  end
end

local function tell(id, number, kind, data, at)
  local event = string.format('{"id":%d,"kind":"%s","data":%s,"at":%s}', number, kind, data, at)
  redis.call('PUBLISH', P .. 'events', id .. event)
  return event
end

local function keep_event(id, event)
  redis.call('RPUSH', P .. 'events:' .. id, event)
  redis.call('LTRIM', P .. 'events:' .. id, -KEPT, -1)
end

local function announce(id, status, at)
  local number = redis.call('HINCRBY', P .. 'job:' .. id, 'event', STRIDE)
  redis.call('HSET', P .. 'job:' .. id, 'announced', number)
  if status == 'pending' or status == 'processing' then
    keep_event(id, tell(id, number, 'status', '{"status":"' .. status .. '"}', at))
  else
    redis.call('DEL', P .. 'events:' .. id)
    tell(id, number, status, '{}', at)
  end
end

local function held(id, worker, attempts)
  local it = job(id)
  if it.status == 'processing' and it.worker == worker and it.attempts == attempts then
    return it
  end
end

local function unlease(id, it)
  redis.call('ZREM', P .. 'leases', id)
  if it.gpu_pool then
    redis.call('SREM', P .. 'leases:' .. it.gpu_pool, id)
    redis.call('HDEL', P .. 'job:' .. id, 'gpu_pool')
  end
  redis.call('HINCRBY', P .. 'leased', it.model .. ':' .. it.lane, -1)
end

-- Following.

local function cache_keys(id)
  local found = {}
  for key in string.gmatch(redis.call('GET', P .. 'keys:' .. id) or '', '%S+') do
    found[#found + 1] = key
  end
  return found
end

local function own(id)
  for _, key in ipairs(cache_keys(id)) do
    redis.call('HSETNX', P .. 'generations', key, id)
  end
end

local function disown(id)
  for _, key in ipairs(cache_keys(id)) do
    if redis.call('HGET', P .. 'generations', key) == id then
      redis.call('HDEL', P .. 'generations', key)
    end
  end
end

-- The first follower draws what the ended job did not; whether it took over its place.
local function succeed(id, it, followers, status)
  local heir = followers[1]
  local soonest = field(heir, 'lane')
  redis.call('DEL', P .. 'followers:' .. id)
  for i = 2, #followers do
    soonest = math.min(soonest, field(followers[i], 'lane'))
    redis.call('HSET', P .. 'job:' .. followers[i], 'follows', heir)
    redis.call('ZADD', P .. 'followers:' .. heir, field(followers[i], 'submitted_at'), followers[i])
  end
  own(heir)
  local his = job(heir)
  if it.rank and it.model == his.model then
    put(heir, his, it.lane, tonumber(it.rank), it.start and tonumber(it.start), it.charge)
    free(id, it)
    return true
  end
  -- Whoever cancels a job under way does not send those who shared it to the end.
  place(heir, status == 'cancelled' and '0' or tostring(soonest))
  return false
end

local function finish(id, status, outcome, shared, now, owner)
  local it = job(id)
  local followers = redis.call('ZRANGE', P .. 'followers:' .. id, 0, -1)
  if it.status == 'processing' then
    unlease(id, it)
  end
  if it.follows then
    redis.call('ZREM', P .. 'followers:' .. it.follows, id)
  end
  disown(id)
  local inherited = false
  if status == 'completed' then
    for _, follower in ipairs(followers) do
      finish(follower, status, shared, shared, now, id)
    end
  elseif #followers > 0 then
    inherited = succeed(id, it, followers, status)
  end
  if it.rank and not inherited then
    leave(id, it)
  end
  redis.call('DEL', P .. 'keys:' .. id)
  set_status(id, it, status)
  redis.call('HDEL', P .. 'job:' .. id, 'follows')
  redis.call('HSET', P .. 'job:' .. id, 'ended_at', now)
  if owner then
    redis.call('HSET', P .. 'job:' .. id, 'follows', owner)
    redis.call('SADD', P .. 'sharers:' .. owner, id)
  end
  if outcome ~= '' then
    redis.call('SET', P .. 'outcome:' .. id, outcome)
  end
  redis.call('ZADD', P .. 'ended', now, id)
  if it.webhook then
    redis.call('ZADD', P .. 'deliveries', now, id)
  end
  announce(id, status, now)
end

local function forget(id)
  local it = job(id)
  local list = P .. 'of:' .. it.tenant .. ':'
  redis.call('ZREM', list .. it.status, id)
  redis.call('HINCRBY', P .. 'counts', it.status, -1)
  if redis.call('EXISTS', list .. 'pending', list .. 'processing', list .. 'completed',
      list .. 'failed', list .. 'cancelled') == 0 then
    redis.call('SREM', P .. 'tenants', it.tenant)
  end
  if it.idempotency_key then
    redis.call('HDEL', P .. 'idempotency:' .. it.tenant, it.idempotency_key)
  end
  if it.follows then
    redis.call('SREM', P .. 'sharers:' .. it.follows, id)
  end
  redis.call('ZREM', P .. 'ended', id)
  redis.call('ZREM', P .. 'deliveries', id)
  redis.call('HDEL', P .. 'delivery_attempts', id)
  for _, name in ipairs({'job:', 'asked:', 'outcome:', 'checkpoint:', 'events:'}) do
    redis.call('DEL', P .. name .. id)
  end
end

-- `spared`: its worker was lost, and the job is not blamed for the first such loss. The attempt is
-- not taken back: by its number a worker that is late is told from the next one.
local function hand_back(id, it, blamed, now, exhausted, spared)
  local attempts = tonumber(it.attempts) - (it.spared and 1 or 0)
  if blamed and attempts >= MAX_ATTEMPTS then
    finish(id, 'failed', exhausted, '', now)
    return
  end
  unlease(id, it)
  set_status(id, it, 'pending')
  redis.call('HDEL', P .. 'job:' .. id, 'worker')
  redis.call('HSET', P .. 'job:' .. id, 'step', it.checkpoint_step or 0)
  if blamed then
    redis.call('HSET', P .. 'job:' .. id, 'alone', 1)
  elseif spared then
    redis.call('HSET', P .. 'job:' .. id, 'spared', 1)
  else
    redis.call('HINCRBY', P .. 'job:' .. id, 'attempts', -1)
  end
  place(id, '0')
  announce(id, 'pending', now)
end
