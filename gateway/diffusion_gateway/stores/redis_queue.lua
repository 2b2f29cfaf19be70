-- The queues: who is next, by lane and fair share, and what is ahead of whom.
--
-- KEYS[1] is the prefix of all keys. Its hash tag puts them into one slot of a cluster.
-- A queue is named MODEL:LANE. Its members are ID:WORK, so that sums need no other key.

-- The gateway sets STRETCH, STRIDE, KEPT and MAX_ATTEMPTS above this file.

local P = KEYS[1]
local BLOCK = 256

local function num(value)
  return string.format('%.17g', value)
end

local function field(id, name)
  return redis.call('HGET', P .. 'job:' .. id, name)
end

local function job(id)
  local flat, found = redis.call('HGETALL', P .. 'job:' .. id), {}
  for i = 1, #flat, 2 do
    found[flat[i]] = flat[i + 1]
  end
  return found
end

-- With memory at its limit Redis refuses a script's first write if that may grow memory, and lets
-- the rest pass. Jobs under way must get on and end, else the memory never becomes free.
local function even_if_full()
  redis.call('DEL', P .. 'nothing')
end

-- Sums of work over runs of a queue, so that a position needs no walk. A block starts at a rank
-- and ends where the next one starts.

local function block_of(queue, rank)
  return redis.call('ZREVRANGEBYSCORE', P .. 'blocks:' .. queue, num(rank), '-inf', 'LIMIT', 0, 1)[1]
end

local function members_of(queue, block)
  local blocks = P .. 'blocks:' .. queue
  local low = redis.call('ZSCORE', blocks, block)
  local above = redis.call('ZRANGEBYSCORE', blocks, '(' .. low, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local high = above[2] and '(' .. above[2] or '+inf'
  return redis.call('ZRANGEBYSCORE', P .. 'queue:' .. queue, low, high, 'WITHSCORES')
end

local function split(queue, block)
  local members = members_of(queue, block)
  local middle, low = math.floor(#members / 4) * 2 + 2, members[2]
  while middle > 2 and members[middle] == members[middle - 2] do
    middle = middle - 2
  end
  while members[middle] == low do
    middle = middle + 2
  end
  if not members[middle] then
    return
  end
  local moved, count, sums = 0, 0, P .. 'sums:' .. queue
  for i = middle, #members, 2 do
    moved = moved + tonumber(string.sub(members[i - 1], 34))
    count = count + 1
  end
  local fresh = tostring(redis.call('HINCRBY', sums, 'last', 1))
  redis.call('ZADD', P .. 'blocks:' .. queue, members[middle], fresh)
  redis.call('HINCRBYFLOAT', sums, 'work' .. block, num(-moved))
  redis.call('HINCRBY', sums, 'jobs' .. block, -count)
  redis.call('HSET', sums, 'work' .. fresh, num(moved), 'jobs' .. fresh, count)
end

local function add_work(queue, rank, work)
  local sums = P .. 'sums:' .. queue
  redis.call('ZADD', P .. 'blocks:' .. queue, 'NX', '-inf', '0')
  local block = block_of(queue, rank)
  redis.call('HINCRBYFLOAT', sums, 'work', work)
  redis.call('HINCRBYFLOAT', sums, 'work' .. block, work)
  local jobs = redis.call('HINCRBY', sums, 'jobs' .. block, 1)
  if jobs >= BLOCK and jobs % BLOCK == 0 then
    split(queue, block)
  end
end

local function take_work(queue, rank, work)
  local sums, block = P .. 'sums:' .. queue, block_of(queue, rank)
  redis.call('HINCRBYFLOAT', sums, 'work', '-' .. work)
  redis.call('HINCRBYFLOAT', sums, 'work' .. block, '-' .. work)
  if redis.call('HINCRBY', sums, 'jobs' .. block, -1) == 0 and block ~= '0' then
    redis.call('HDEL', sums, 'work' .. block, 'jobs' .. block)
    redis.call('ZREM', P .. 'blocks:' .. queue, block)
  end
end

local function work_ahead(queue, rank, member)
  local block = block_of(queue, rank)
  local low = redis.call('ZSCORE', P .. 'blocks:' .. queue, block)
  local below = redis.call('ZRANGEBYSCORE', P .. 'blocks:' .. queue, '-inf', '(' .. low)
  local work = 0
  for i = 1, #below do
    work = work + tonumber(redis.call('HGET', P .. 'sums:' .. queue, 'work' .. below[i]) or 0)
  end
  local within = redis.call('ZRANGEBYSCORE', P .. 'queue:' .. queue, low, num(rank))
  for i = 1, #within do
    if within[i] == member then
      break
    end
    work = work + tonumber(string.sub(within[i], 34))
  end
  return work
end

-- Places.

local function put(id, it, lane, rank, start, charge)
  local queue = it.model .. ':' .. lane
  redis.call('ZADD', P .. 'queue:' .. queue, num(rank), id .. ':' .. it.work)
  redis.call('ZADD', P .. 'ages:' .. queue, it.submitted_at, id)
  redis.call('SADD', P .. 'models', it.model)
  add_work(queue, rank, it.work)
  redis.call('HSET', P .. 'job:' .. id, 'lane', lane, 'rank', num(rank), 'charge', charge)
  redis.call('HDEL', P .. 'job:' .. id, 'follows', 'start')
  if start then
    redis.call('HSET', P .. 'job:' .. id, 'start', num(start))
  end
end

-- Gives a job its place in a lane as core's fair_queue.tag says; those handed back (lane 0) wait
-- in order of submission.
local function place(id, lane)
  local it = job(id)
  if lane == '0' then
    put(id, it, lane, tonumber(it.submitted_at), nil, it.charge)
    return
  end
  local queue, charge = it.model .. ':' .. lane, tonumber(it.charge)
  local virtual = tonumber(redis.call('GET', P .. 'virtual:' .. queue) or 0)
  local horizon = tonumber(redis.call('ZSCORE', P .. 'horizons:' .. queue, it.tenant) or 0)
  local start = math.max(virtual, horizon)
  redis.call('ZADD', P .. 'horizons:' .. queue, num(start + charge), it.tenant)
  put(id, it, lane, start + STRETCH * charge, start, it.charge)
end

local function free(id, it)
  local queue, member = it.model .. ':' .. it.lane, id .. ':' .. it.work
  redis.call('ZREM', P .. 'queue:' .. queue, member)
  redis.call('ZREM', P .. 'ages:' .. queue, id)
  redis.call('HDEL', P .. 'job:' .. id, 'rank', 'start')
  if redis.call('EXISTS', P .. 'queue:' .. queue) == 0 then
    -- A queue that has run empty starts anew: nobody pays for work of other days.
    for _, name in ipairs({'blocks:', 'sums:', 'virtual:', 'horizons:'}) do
      redis.call('DEL', P .. name .. queue)
    end
  else
    take_work(queue, tonumber(it.rank), it.work)
  end
end

-- Frees the place of the job that is next; the queue's virtual time moves on to it.
local function take(id, it)
  if it.start then
    local queue = it.model .. ':' .. it.lane
    local virtual = tonumber(redis.call('GET', P .. 'virtual:' .. queue) or 0)
    virtual = num(math.max(virtual, tonumber(it.start)))
    redis.call('SET', P .. 'virtual:' .. queue, virtual)
    redis.call('ZREMRANGEBYSCORE', P .. 'horizons:' .. queue, '-inf', virtual)
  end
  free(id, it)
end

-- Frees a place that was not used; the tenant's later jobs do not pay for it.
local function leave(id, it)
  local horizons = it.start and P .. 'horizons:' .. it.model .. ':' .. it.lane
  if it.start and redis.call('ZSCORE', horizons, it.tenant) then
    redis.call('ZINCRBY', horizons, '-' .. it.charge, it.tenant)
  end
  free(id, it)
end
