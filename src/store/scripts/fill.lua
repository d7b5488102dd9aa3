#!lua
-- Stores a value, if the lease that it was computed under still lives.
--
-- KEYS  1 the key, 2 its lease, 3 the state, 4 (scoped caches) the scope's generation
-- ARGV  1 the lease's token, 2 the value, 3 its life in ms,
--       4 (scoped caches) the generation that is part of the key
-- Answers 'stored', or 'voided': a change was applied since, or the lease has expired.
--
-- No allow-oom: on a full Redis a fill is refused.
if redis.call('GET', KEYS[2]) ~= ARGV[1] or redis.call('HGET', KEYS[3], 'valid') ~= '1' then
  return 'voided'
end
if KEYS[4] and redis.call('GET', KEYS[4]) ~= ARGV[4] then
  return 'voided'
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
return 'stored'
