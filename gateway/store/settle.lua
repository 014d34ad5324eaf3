-- Replace a reservation by what was used. KEYS: the reservation, then each bucket.
-- ARGV: msgpack of call id, clock, tombstone ms, whether to charge a call that has no
-- reservation, demands, units used of each. Answers 1 if there was something to settle.
local id, given, tombstone_ms, charges, demands, used = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock(given)
local known = redis.call('GET', KEYS[1])
known = known and cmsgpack.unpack(known)
if known and not known[1] then return 0 end

local function settle_rate(key, bucket, amount, taken)
  local state = read(key, bucket, now)
  local more = amount - taken[1]
  if more > 0 then
    state.level = state.level + more * MINUTE
  elseif state.born == taken[5] then
    local undrained = taken[3] - (state.refunded - taken[4])
      - bucket[LIMIT] * math.max(0, state.at - taken[2])
    local refund = math.min(-more * MINUTE, math.max(0, undrained), state.level)
    state.level = state.level - refund
    state.refunded = state.refunded + refund
    if state.refunded > MAX_REFUNDED then
      state.refunded, state.born = 0, state.at
    end
  end
  write(key, bucket, state, now)
end

local function settle_window(key, bucket, amount, taken)
  local state = read(key, bucket, now)
  if state.period == taken[6] then
    state.used = math.max(0, state.used + amount - taken[1])
    write(key, bucket, state, now)
  end
end

for i, demand in ipairs(demands) do
  local key, bucket, taken = KEYS[i + 1], demand[BUCKET], known and known[3][i]
  if bucket[KIND] == 'leases' then
    redis.call('ZREM', key, id)
  elseif taken then
    if bucket[KIND] == 'window' then
      settle_window(key, bucket, used[i], taken)
    elseif used[i] ~= taken[1] then
      settle_rate(key, bucket, used[i], taken)
    end
  elseif charges and not known then
    local state = read(key, bucket, now)
    if bucket[KIND] == 'window' then
      state.used = state.used + used[i]
    else
      state.level = state.level + used[i] * MINUTE
    end
    write(key, bucket, state, now)
  end
end
redis.call('SET', KEYS[1], cmsgpack.pack({false, 0}), 'PX', tombstone_ms)
return known and 1 or 0
