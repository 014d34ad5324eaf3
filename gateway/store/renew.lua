-- Say that calls still run. KEYS: for each call its reservation, then its leases' keys.
-- ARGV: msgpack of clock, lease ms, reservation ms, calls (each its id and how many
-- leases). A settled call is left alone; one that a restarted Redis has forgotten gets
-- its leases back.
local given, lease_ms, keep_ms, calls = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock(given)
local place, num_alive = 1, 0
for _, call in ipairs(calls) do
  local id, num_leases = call[1], call[2]
  local known = redis.call('GET', KEYS[place])
  if not known or cmsgpack.unpack(known)[1] then
    num_alive = num_alive + 1
    redis.call('PEXPIRE', KEYS[place], keep_ms)
    for i = place + 1, place + num_leases do
      redis.call('ZADD', KEYS[i], now + lease_ms, id)
      redis.call('PEXPIRE', KEYS[i], lease_ms * 2)
    end
  end
  place = place + 1 + num_leases
end
return num_alive
