-- One decision over all buckets. KEYS: the reservation, then each bucket.
-- ARGV: msgpack of call id, clock, output, least output, lease ms, reservation ms,
-- demands, whether to look only.
-- Answers msgpack of granted, output, fills.
local id, given, output, least, lease_ms, keep_ms, demands, looks = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock(given)
local known = not looks and redis.call('GET', KEYS[1])
local states, costs, fills = {}, {}, {}
for i, demand in ipairs(demands) do states[i] = read(KEYS[i + 1], demand[BUCKET], now) end

if looks or known then
  local granted = true
  if known then
    known = cmsgpack.unpack(known)
    granted, output = known[1], known[2]
  end
  for i, demand in ipairs(demands) do
    local bucket = demand[BUCKET]
    local cost = known and 0 or up(demand[FIXED], bucket[SCALE])
    fills[i] = fill(bucket, states[i], cost, now)
  end
  return cmsgpack.pack({granted, output, fills})
end

local wanted = output
for i, demand in ipairs(demands) do
  local bucket, fixed, per = demand[BUCKET], demand[FIXED], demand[PER_OUTPUT]
  if bucket[CLAMPS] and bucket[ENFORCED] and per > 0 then
    local room = fill(bucket, states[i], 0, now)[3]
    output = math.min(output, math.max(0, math.floor((room * bucket[SCALE] - fixed) / per)))
  end
end
output = math.max(output, math.min(least, wanted))

local granted = true
for i, demand in ipairs(demands) do
  local bucket = demand[BUCKET]
  costs[i] = up(demand[FIXED] + demand[PER_OUTPUT] * output, bucket[SCALE])
  fills[i] = fill(bucket, states[i], costs[i], now)
  if bucket[ENFORCED] and not fills[i][1] then granted = false end
end
if not granted then return cmsgpack.pack({false, output, fills}) end

local taken = {}
for i, demand in ipairs(demands) do
  local key, bucket, state = KEYS[i + 1], demand[BUCKET], states[i]
  taken[i] = false
  if fills[i][1] then
    if bucket[KIND] == 'leases' then
      redis.call('ZADD', key, now + lease_ms, id)
      redis.call('PEXPIRE', key, lease_ms * 2)
      state.held = state.held + 1
      taken[i] = {costs[i], now, 0, 0, 0, 0}
    elseif bucket[KIND] == 'window' then
      state.used = state.used + costs[i]
      write(key, bucket, state, now)
      taken[i] = {costs[i], now, 0, 0, 0, state.period}
    else
      state.level = state.level + costs[i] * MINUTE
      write(key, bucket, state, now)
      taken[i] = {costs[i], state.at, state.level, state.refunded, state.born, 0}
    end
    fills[i] = fill(bucket, state, 0, now)
  end
end
redis.call('SET', KEYS[1], cmsgpack.pack({true, output, taken}), 'PX', keep_ms)
return cmsgpack.pack({true, output, fills})
