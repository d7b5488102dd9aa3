#!lua
-- Stores a value, if the lease that it was computed under still lives.
--
-- KEYS  1 the key, 2 its lease, 3 the state, 4 (scoped caches) the scope's generation
-- ARGV  1 the lease's token, 2 the value, 3 its life in ms,
--       4 (scoped caches) the generation that is part of the key
-- Answers 'stored', or 'voided': a change was applied since, or the lease has expired.
--
-- Of a key that is refreshed, a change does not void the lease but writes a due behind its
-- token (Unix time in ms): the value may lack that change, so it lives no longer, and is voided
-- if that has passed.
--
-- No allow-oom: on a full Redis a fill is refused.
local token, due = string.match(redis.call('GET', KEYS[2]) or '', '^(%S+) ?(%d*)$')
if token ~= ARGV[1] or redis.call('HGET', KEYS[3], 'valid') ~= '1' then
  return 'voided'
end
if KEYS[4] and redis.call('GET', KEYS[4]) ~= ARGV[4] then
  return 'voided'
end
redis.call('DEL', KEYS[2])
if due == '' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 'stored'
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now >= tonumber(due) then
  return 'voided'
end
-- PXAT, for PX would count from when SET runs: a moment after TIME.
local ends = math.min(now + ARGV[3], tonumber(due))
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', string.format('%.0f', ends))
return 'stored'
