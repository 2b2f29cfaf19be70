-- What the gateway asks for of jobs. ARGV[1] names an operation, the others are its arguments.

local ops = {}

local function queue_or_follow(id, lane, submitted_at)
  for _, key in ipairs(cache_keys(id)) do
    local leader = redis.call('HGET', P .. 'generations', key)
    if leader then
      redis.call('HSET', P .. 'job:' .. id, 'follows', leader)
      redis.call('ZADD', P .. 'followers:' .. leader, submitted_at, id)
      local it = job(leader)
      if it.rank and it.lane > lane then
        leave(leader, it)
        place(leader, lane)
      end
      return
    end
  end
  own(id)
  place(id, lane)
end

function ops.submit(id, record, tenant, model, work, charge, lane, submitted_at, deadline,
    idempotency_key, digest, webhook, keys, max_waiting, max_active)
  if redis.call('EXISTS', P .. 'job:' .. id) == 1 then
    return {'created', view(id)}
  end
  local earlier = idempotency_key ~= ''
    and redis.call('HGET', P .. 'idempotency:' .. tenant, idempotency_key)
  if earlier then
    return {field(earlier, 'digest') == digest and 'known' or 'conflict', view(earlier)}
  end
  local waiting = tonumber(redis.call('HGET', P .. 'counts', 'pending') or 0)
  if max_waiting ~= '' and waiting >= tonumber(max_waiting) then
    return {'full', max_waiting}
  end
  local active = redis.call('ZCARD', P .. 'of:' .. tenant .. ':pending')
    + redis.call('ZCARD', P .. 'of:' .. tenant .. ':processing')
  if max_active ~= '' and active >= tonumber(max_active) then
    return {'busy', max_active}
  end
  redis.call('SET', P .. 'asked:' .. id, record)
  redis.call('HSET', P .. 'job:' .. id, 'tenant', tenant, 'model', model, 'work', work,
    'charge', charge, 'lane', lane, 'submitted_at', submitted_at, 'status', 'pending',
    'attempts', 0, 'step', 0, 'event', 1, 'announced', 1)
  for name, value in pairs({deadline = deadline, idempotency_key = idempotency_key,
      webhook = webhook}) do
    if value ~= '' then
      redis.call('HSET', P .. 'job:' .. id, name, value)
    end
  end
  if idempotency_key ~= '' then
    redis.call('HSET', P .. 'job:' .. id, 'digest', digest)
    redis.call('HSET', P .. 'idempotency:' .. tenant, idempotency_key, id)
  end
  redis.call('SADD', P .. 'tenants', tenant)
  redis.call('ZADD', P .. 'of:' .. tenant .. ':pending', 0, id)
  redis.call('HINCRBY', P .. 'counts', 'pending', 1)
  if deadline ~= '' then
    redis.call('ZADD', P .. 'deadlines', deadline, id)
  end
  if keys ~= '' then
    redis.call('SET', P .. 'keys:' .. id, keys)
  end
  queue_or_follow(id, lane, submitted_at)
  return {'created', view(id)}
end

function ops.get(id)
  return redis.call('EXISTS', P .. 'job:' .. id) == 1 and view(id)
end

function ops.list(tenant, status, before, limit)
  local statuses = status ~= '' and {status}
    or {'pending', 'processing', 'completed', 'failed', 'cancelled'}
  local tenants = tenant ~= '' and {tenant} or redis.call('SMEMBERS', P .. 'tenants')
  local ids = {}
  for _, one in ipairs(tenants) do
    for _, kind in ipairs(statuses) do
      local some = redis.call('ZREVRANGEBYLEX', P .. 'of:' .. one .. ':' .. kind,
        '(' .. before, '-', 'LIMIT', 0, limit)
      for i = 1, #some do
        ids[#ids + 1] = some[i]
      end
    end
  end
  table.sort(ids, function(one, other) return one > other end)
  local found = {}
  for i = 1, math.min(#ids, tonumber(limit)) do
    found[i] = view(ids[i])
  end
  return found
end

function ops.cancel(id, now)
  local status = field(id, 'status')
  if status == 'pending' or status == 'processing' then
    even_if_full()
    finish(id, 'cancelled', '', '', now)
    if status == 'processing' then
      redis.call('PUBLISH', P .. 'cancellations', id)
    end
  end
  return status and view(id)
end

function ops.delete(id, now)
  local last = ops.cancel(id, now)
  if last then
    forget(id)
  end
  return last
end

function ops.position(id)
  local it = job(id)
  if it.follows and it.status == 'pending' then
    id = it.follows
    it = job(id)
  end
  if not it.rank then
    return false
  end
  local queue, member = it.model .. ':' .. it.lane, id .. ':' .. it.work
  local ahead = redis.call('ZRANK', P .. 'queue:' .. queue, member)
  local work = work_ahead(queue, tonumber(it.rank), member)
  for lane = 0, tonumber(it.lane) - 1 do
    local before = it.model .. ':' .. lane
    ahead = ahead + redis.call('ZCARD', P .. 'queue:' .. before)
    work = work + tonumber(redis.call('HGET', P .. 'sums:' .. before, 'work') or 0)
  end
  return {ahead, num(work)}
end

-- A worker's side.

function ops.claim(worker, model, lanes, until_, now, gpu_pool)
  for lane in string.gmatch(lanes, '%d') do
    local member = redis.call('ZRANGE', P .. 'queue:' .. model .. ':' .. lane, 0, 0)[1]
    if member then
      even_if_full()
      local id = string.sub(member, 1, 32)
      local it = job(id)
      take(id, it)
      set_status(id, it, 'processing')
      redis.call('HSET', P .. 'job:' .. id, 'worker', worker)
      redis.call('HSETNX', P .. 'job:' .. id, 'started_at', now)
      redis.call('HINCRBY', P .. 'job:' .. id, 'attempts', 1)
      redis.call('ZADD', P .. 'leases', until_, id)
      if gpu_pool ~= '' then
        redis.call('SADD', P .. 'leases:' .. gpu_pool, id)
        redis.call('HSET', P .. 'job:' .. id, 'gpu_pool', gpu_pool)
      end
      redis.call('HINCRBY', P .. 'leased', model .. ':' .. lane, 1)
      announce(id, 'processing', now)
      return view(id)
    end
  end
  return false
end

function ops.renew(until_, ...)
  even_if_full()
  local leases, lost = {...}, {}
  for i = 1, #leases, 3 do
    if held(leases[i], leases[i + 1], leases[i + 2]) then
      redis.call('ZADD', P .. 'leases', until_, leases[i])
    else
      lost[#lost + 1] = leases[i]
    end
  end
  return lost
end

function ops.progress(id, worker, attempts, step, checkpoint)
  if not held(id, worker, attempts) then
    return checkpoint ~= '' and checkpoint
  end
  even_if_full()
  redis.call('HSET', P .. 'job:' .. id, 'step', step)
  if checkpoint == '' then
    return false
  end
  redis.call('HSET', P .. 'job:' .. id, 'checkpoint_step', step)
  return redis.call('SET', P .. 'checkpoint:' .. id, checkpoint, 'GET')
end

function ops.hand_back(id, worker, attempts, blamed, now, exhausted)
  local it = held(id, worker, attempts)
  if not it then
    return false
  end
  even_if_full()
  hand_back(id, it, blamed == '1', now, exhausted)
  return view(id)
end

ops['end'] = function(id, worker, attempts, status, outcome, shared, now)
  local it = job(id)
  if it.status ~= 'processing' or it.worker ~= worker or it.attempts ~= attempts then
    -- Asked again, because the answer was lost, the same lease hears the same.
    return it.status == status and status ~= 'cancelled' and it.worker == worker
      and it.attempts == attempts and 1 or 0
  end
  even_if_full()
  finish(id, status, outcome, shared, now)
  return 1
end

function ops.complete_cached(id, outcome, now)
  if field(id, 'status') ~= 'pending' then
    return 0
  end
  even_if_full()
  finish(id, 'completed', outcome, outcome, now)
  return 1
end

-- Upkeep.

function ops.reap(now, limit, exhausted)
  local ids = redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, limit)
  even_if_full()
  local steps = {}
  for i, id in ipairs(ids) do
    local it = job(id)
    steps[i] = it.step
    hand_back(id, it, it.spared ~= nil, now, exhausted, true)
  end
  return {views(ids), steps}
end

-- Of each tenant the first job that has waited since before `since` while urgent ones came, and
-- none of a tenant whose share of the urgent lane is used up.
local function raise_starving(model, lane, since, limit)
  local moved, urgent = 0, model .. ':1'
  for _, member in ipairs(redis.call('ZRANGE', P .. 'queue:' .. model .. lane, 0, limit - 1)) do
    local id = string.sub(member, 1, 32)
    local it = job(id)
    local horizon = tonumber(redis.call('ZSCORE', P .. 'horizons:' .. urgent, it.tenant) or 0)
    local virtual = tonumber(redis.call('GET', P .. 'virtual:' .. urgent) or 0)
    if tonumber(it.submitted_at) < since and horizon <= virtual then
      leave(id, it)
      place(id, '1')
      moved = moved + 1
    end
  end
  return moved
end

function ops.promote(before, since, limit)
  local moved = 0
  even_if_full()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', '(' .. before)) do
    local it = job(id)
    local leader = it.follows
    if leader then
      -- Should it come to draw itself, it is as urgent.
      redis.call('HSET', P .. 'job:' .. id, 'lane', math.min(1, tonumber(it.lane)))
      id, it = leader, job(leader)
    end
    if it.rank and tonumber(it.lane) > 1 then
      leave(id, it)
      place(id, '1')
      moved = moved + 1
    end
  end
  for _, model in ipairs(redis.call('SMEMBERS', P .. 'models')) do
    if redis.call('EXISTS', P .. 'queue:' .. model .. ':1') == 1 then
      moved = moved + raise_starving(model, ':2', tonumber(since), tonumber(limit))
      moved = moved + raise_starving(model, ':3', tonumber(since), tonumber(limit))
    end
  end
  return moved
end

function ops.overdue(now, limit, error)
  local ids = redis.call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', now, 'LIMIT', 0, limit)
  even_if_full()
  for _, id in ipairs(ids) do
    finish(id, 'failed', error, '', now)
  end
  return views(ids)
end

function ops.unserved(model, before, now, limit, error)
  local ids = {}
  even_if_full()
  for lane = 0, 3 do
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'ages:' .. model .. ':' .. lane, '-inf',
        '(' .. before, 'LIMIT', 0, limit - #ids)) do
      finish(id, 'failed', error, '', now)
      ids[#ids + 1] = id
    end
  end
  return views(ids)
end

function ops.expire(before, limit)
  local ids = redis.call('ZRANGEBYSCORE', P .. 'ended', '-inf', '(' .. before, 'LIMIT', 0, limit)
  local found = views(ids)
  for _, id in ipairs(ids) do
    forget(id)
  end
  return found
end

function ops.shares_files(owner, but)
  if owner ~= but and redis.call('EXISTS', P .. 'job:' .. owner) == 1 then
    return 1
  end
  local sharers = redis.call('SCARD', P .. 'sharers:' .. owner)
  return sharers - redis.call('SISMEMBER', P .. 'sharers:' .. owner, but) > 0 and 1 or 0
end

function ops.depths()
  local found = {}
  for _, model in ipairs(redis.call('SMEMBERS', P .. 'models')) do
    for lane = 0, 3 do
      local queue = model .. ':' .. lane
      local waiting = redis.call('ZCARD', P .. 'queue:' .. queue)
      local leased = tonumber(redis.call('HGET', P .. 'leased', queue) or 0)
      if waiting > 0 or leased > 0 then
        local work = redis.call('HGET', P .. 'sums:' .. queue, 'work') or '0'
        local oldest = redis.call('ZRANGE', P .. 'ages:' .. queue, 0, 0, 'WITHSCORES')[2]
        found[#found + 1] = {model, lane, waiting, leased, work, oldest or false}
      end
    end
  end
  return found
end

-- Events.

function ops.publish(id, kind, data, at)
  local status = field(id, 'status')
  if status == 'pending' or status == 'processing' then
    even_if_full()
    local number = redis.call('HINCRBY', P .. 'job:' .. id, 'event', 1)
    keep_event(id, tell(id, number, kind, data, at))
  end
end

function ops.events(id)
  if redis.call('EXISTS', P .. 'job:' .. id) == 1 then
    return {view(id), redis.call('LRANGE', P .. 'events:' .. id, 0, -1)}
  end
  return false
end
