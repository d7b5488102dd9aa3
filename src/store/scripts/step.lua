#!lua flags=allow-oom
-- One step of the chain: removes keys with their leases, moves the state on.
--
-- KEYS  1 the state, 2 the certificate, 3… the keys to remove
-- ARGV  1 the nonce of the last acknowledged step, 2 this step's nonce,
--       3 what makes a lease of a key, 4 the certificate's life in ms (0: not renewed),
--       5 what the certificate says, 6… field, value, … of the state
-- Answers the remaining life of each removed key in ms (-1: no expiry, -2: was not
-- there), or the nonce found as a string if the chain is broken.
--
-- allow-oom: a full Redis must still take invalidations.
local found = redis.call('HGET', KEYS[1], 'nonce') or ''
if found ~= ARGV[1] and found ~= ARGV[2] then
  return found
end
local lives, doomed = {}, {}
for i = 3, #KEYS do
  local key = KEYS[i]
  lives[i - 2] = redis.call('PTTL', key)
  doomed[#doomed + 1] = key
  doomed[#doomed + 1] = ARGV[3] .. '{' .. key .. '}'
  if #doomed >= 1000 then
    redis.call('UNLINK', unpack(doomed))
    doomed = {}
  end
end
if #doomed > 0 then
  redis.call('UNLINK', unpack(doomed))
end
-- The state last: a step that failed half-way is found undone, and done again.
redis.call('HSET', KEYS[1], 'nonce', ARGV[2], unpack(ARGV, 6))
if ARGV[4] ~= '0' and redis.call('HGET', KEYS[1], 'valid') == '1' then
  redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[4])
end
return lives
