-- One decision over all buckets. KEYS: the reservation, then each bucket.
-- ARGV: msgpack of call id, clock, output, least output, lease ms, reservation ms,
-- demands (each a bucket, then fixed and per_output), whether to look only.
-- Answers msgpack of granted, output, fills.
local id, given, output, least, lease_ms, keep_ms, demands, looks = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock(given)
local known = not looks and redis.call('GET', KEYS[1])
local states, costs, fills = {}, {}, {}
for i, demand in ipairs(demands) do states[i] = read(KEYS[i + 1], demand, now) end

if looks or known then
  local granted = true
  if known then
    known = cmsgpack.unpack(known)
    granted, output = known[1], known[2]
  end
  for i, demand in ipairs(demands) do
    fills[i] = fill(demand, states[i], known and 0 or up(demand[8], demand[5]), now)
  end
  return cmsgpack.pack({granted, output, fills})
end

local wanted = output
for i, demand in ipairs(demands) do
  local enforced, clamps, fixed, per = demand[6], demand[7], demand[8], demand[9]
  if clamps and enforced and per > 0 then
    local room = fill(demand, states[i], 0, now)[3]
    output = math.min(output, math.max(0, math.floor((room * demand[5] - fixed) / per)))
  end
end
output = math.max(output, math.min(least, wanted))

local granted = true
for i, demand in ipairs(demands) do
  costs[i] = up(demand[8] + demand[9] * output, demand[5])
  fills[i] = fill(demand, states[i], costs[i], now)
  if demand[6] and not fills[i][1] then granted = false end
end
if not granted then return cmsgpack.pack({false, output, fills}) end

local taken = {}
for i, demand in ipairs(demands) do
  local key, state = KEYS[i + 1], states[i]
  taken[i] = false
  if fills[i][1] then
    if demand[1] == 'leases' then
      redis.call('ZADD', key, now + lease_ms, id)
      redis.call('PEXPIRE', key, lease_ms * 2)
      state.held = state.held + 1
      taken[i] = {costs[i], now, 0, 0, 0, 0}
    elseif demand[1] == 'window' then
      state.used = state.used + costs[i]
      write(key, demand, state, now)
      taken[i] = {costs[i], now, 0, 0, 0, state.period}
    else
      state.level = state.level + costs[i] * MINUTE
      write(key, demand, state, now)
      taken[i] = {costs[i], state.at, state.level, state.refunded, state.born, 0}
    end
    fills[i] = fill(demand, state, 0, now)
  end
end
redis.call('SET', KEYS[1], cmsgpack.pack({true, output, taken}), 'PX', keep_ms)
return cmsgpack.pack({true, output, fills})
