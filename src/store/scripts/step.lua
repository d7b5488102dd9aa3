#!lua flags=allow-oom
-- One step of the chain: removes keys with their leases, gives others a due, moves the state
-- on.
--
-- KEYS  1 the state, 2 the certificate, 3… the keys to remove, then those to refresh
-- ARGV  1 the nonce of the last acknowledged step, 2 this step's nonce,
--       3 what makes a lease of a key, 4 the certificate's life in ms (0: not renewed),
--       5 what the certificate says, 6 how many keys are to be refreshed, then for each how
--       many ms its value may stay, then field, value, … of the state
-- Answers the remaining life of each key in ms, as it was before (-1: no expiry, -2: was not
-- there, -3: the same, but somebody computes it to be refreshed), or the nonce found as a
-- string if the chain is broken.
--
-- allow-oom: a full Redis must still take invalidations.
local found = redis.call('HGET', KEYS[1], 'nonce') or ''
if found ~= ARGV[1] and found ~= ARGV[2] then
  return found
end
local refreshed = tonumber(ARGV[6])
local lives, doomed = {}, {}
for i = 3, #KEYS - refreshed do
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
if refreshed > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  for n = 1, refreshed do
    local key = KEYS[#KEYS - refreshed + n]
    local due = string.format('%.0f', now + ARGV[6 + n])
    local life = redis.call('PTTL', key)
    if life ~= -2 then
      -- A value's due is its expiry. LT: the due of an earlier change stays, and so does
      -- an earlier end of its life.
      redis.call('PEXPIREAT', key, due, 'LT')
    end
    -- A lease lives on, so that a value can be stored at all while its key changes; it
    -- remembers the first change that the value may lack.
    local lease = ARGV[3] .. '{' .. key .. '}'
    local held = redis.call('GET', lease)
    if held then
      if not string.find(held, ' ', 1, true) then
        redis.call('SET', lease, held .. ' ' .. due, 'KEEPTTL')
      end
      if life == -2 then
        life = -3
      end
    end
    lives[#lives + 1] = life
  end
end
-- The state last: a step that failed half-way is found undone, and done again.
redis.call('HSET', KEYS[1], 'nonce', ARGV[2], unpack(ARGV, 7 + refreshed))
if ARGV[4] ~= '0' and redis.call('HGET', KEYS[1], 'valid') == '1' then
  redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[4])
end
return lives
