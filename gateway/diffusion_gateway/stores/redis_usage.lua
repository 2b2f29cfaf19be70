-- What was spent: usage:SLOT is a hash of sums by name (a JSON list) and kind, spent:TENANT one of an
-- slot's and a currency's money. Sums are 64-bit whole numbers, which Lua's numbers are not: they are
-- added by Redis and handed on as text.

local SUMS = {'nanos', 'micros', 'jobs', 'images'}

function ops.charge(entry, seconds, slot, name, nanos, micros, jobs, images)
  even_if_full()
  if not redis.call('SET', P .. 'charged:' .. entry, '1', 'NX', 'EX', seconds) then
    return false
  end
  local sums = {nanos, micros, jobs, images}
  for i, kind in ipairs(SUMS) do
    redis.call('HINCRBY', P .. 'usage:' .. slot, kind .. name, sums[i])
  end
  redis.call('ZADD', P .. 'usage_slots', slot, slot)
  local names = cjson.decode(name)
  local tenant, currency = names[1], names[6]
  redis.call('HINCRBY', P .. 'spent:' .. tenant, currency .. slot, nanos)
  redis.call('SADD', P .. 'spenders', tenant)
  return true
end

function ops.usage(since, before)
  local found = {}
  for _, slot in ipairs(redis.call('ZRANGEBYSCORE', P .. 'usage_slots', since, '(' .. before)) do
    local all = redis.call('HGETALL', P .. 'usage:' .. slot)
    local rows = {}
    for i = 1, #all, 2 do
      for place, kind in ipairs(SUMS) do
        if all[i]:sub(1, #kind) == kind then
          local name = all[i]:sub(#kind + 1)
          rows[name] = rows[name] or {slot, name, '0', '0', '0', '0'}
          rows[name][place + 2] = all[i + 1]
        end
      end
    end
    for _, row in pairs(rows) do
      found[#found + 1] = row
    end
  end
  return found
end

function ops.spent(tenant, currency, since, before)
  local fields = {}
  for _, slot in ipairs(redis.call('ZRANGEBYSCORE', P .. 'usage_slots', since, '(' .. before)) do
    fields[#fields + 1] = currency .. slot
  end
  -- Within the 53 bits that a Lua number holds exactly: nine million of a currency.
  local sum = 0
  for i = 1, #fields, 1000 do
    local last = math.min(i + 999, #fields)
    for _, nanos in ipairs(redis.call('HMGET', P .. 'spent:' .. tenant, unpack(fields, i, last))) do
      sum = sum + (tonumber(nanos or 0) or 0)
    end
  end
  return string.format('%.0f', sum)
end

function ops.forget_usage(before)
  local slots = redis.call('ZRANGEBYSCORE', P .. 'usage_slots', '-inf', '(' .. before)
  for _, tenant in ipairs(redis.call('SMEMBERS', P .. 'spenders')) do
    for _, field in ipairs(redis.call('HKEYS', P .. 'spent:' .. tenant)) do
      if tonumber(field:match('%d+$')) < tonumber(before) then
        redis.call('HDEL', P .. 'spent:' .. tenant, field)
      end
    end
    if redis.call('EXISTS', P .. 'spent:' .. tenant) == 0 then
      redis.call('SREM', P .. 'spenders', tenant)
    end
  end
  for _, slot in ipairs(slots) do
    redis.call('DEL', P .. 'usage:' .. slot)
    redis.call('ZREM', P .. 'usage_slots', slot)
  end
end
