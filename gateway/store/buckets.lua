-- The arithmetic of arithmetic.py, and how buckets are kept: each a msgpack array.
-- Numbers are doubles that hold integers; what is exact stays under 2^53.
local MINUTE, DAY, SLACK, MAX_REFUNDED = 60000, 86400000, 60000, 4503599627370496

-- The fields of a bucket, and of a demand, in the order of protocol.py.
local KIND, LIMIT, BURST, PERIOD, SCALE, ENFORCED, CLAMPS = 1, 3, 4, 5, 6, 7, 8
local BUCKET, FIXED, PER_OUTPUT = 1, 2, 3

local function up(amount, by) return math.ceil(amount / by) end

local function clock(given)
  if given ~= 0 then return given end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Days since the epoch to year and month, and back (the civil calendar, counted from March).
local function civil(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524)
    - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return yoe + era * 400 + (month <= 2 and 1 or 0), month
end

local function first_day(year, month)
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local yoe = year - era * 400
  local doy = math.floor((153 * (month > 2 and month - 3 or month + 9) + 2) / 5)
  return era * 146097 + yoe * 365 + math.floor(yoe / 4) - math.floor(yoe / 100) + doy - 719468
end

local function window_of(period, now)
  local day = math.floor(now / DAY)
  if period == 'day' then return day, (day + 1) * DAY end
  local year, month = civil(day)
  local number = year * 12 + month - 1
  local following = month == 12 and first_day(year + 1, 1) or first_day(year, month + 1)
  return number, following * DAY
end

local function write(key, bucket, state, now)
  if bucket[KIND] == 'window' then
    redis.call('SET', key, cmsgpack.pack({state.period, state.used}),
      'PX', string.format('%.0f', state.ends - now + SLACK))
  else
    redis.call('SET', key, cmsgpack.pack({state.level, state.at, state.refunded, state.born}),
      'PX', string.format('%.0f', up(state.level, bucket[LIMIT]) + SLACK))
  end
end

-- What a bucket holds, as it is now.
local function read(key, bucket, now)
  if bucket[KIND] == 'leases' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    return {held = redis.call('ZCARD', key)}
  end
  local kept = redis.call('GET', key)
  local state = kept and cmsgpack.unpack(kept)
  if bucket[KIND] == 'window' then
    local period, ends = window_of(bucket[PERIOD], now)
    local used = (state and state[1] == period) and state[2] or 0
    return {period = period, ends = ends, used = used}
  end
  if not state then return {level = 0, at = now, refunded = 0, born = now} end
  local level, at = state[1], state[2]
  if now < at then
    -- The clock was set back: see `Level.fits` of states.py. Kept at once, because nothing
    -- else may be written here before the bucket has drained.
    local moved = {level = level, at = now, refunded = 0, born = now}
    write(key, bucket, moved, now)
    return moved
  end
  level = math.max(0, level - (now - at) * bucket[LIMIT])
  return {level = level, at = now, refunded = state[3], born = state[4]}
end

-- fits, used, remaining, retry_ms, reset_ms
local function fill(bucket, state, cost, now)
  local limit = bucket[LIMIT]
  if bucket[KIND] == 'leases' then
    local fits = state.held + cost <= limit
    return {fits, state.held, math.max(0, limit - state.held), fits and 0 or 100, 0}
  elseif bucket[KIND] == 'window' then
    local fits, left = state.used + cost <= limit, state.ends - now
    local retry = fits and 0 or (cost > limit and -1 or left)
    return {fits, state.used, math.max(0, limit - state.used), retry, left}
  end
  local room = bucket[BURST] * MINUTE - state.level
  local missing, retry = cost * MINUTE - room, 0
  if missing > 0 then retry = cost > bucket[BURST] and -1 or up(missing, limit) end
  return {missing <= 0, up(state.level, MINUTE), math.max(0, math.floor(room / MINUTE)),
    retry, up(state.level, limit)}
end
