#!lua
-- Asks for a value, or for the right to compute it.
--
-- KEYS  1 the key, 2 its lease, 3 the state, 4 (scoped caches) the scope's generation
-- ARGV  1 a token that nobody used before, 2 the lease's life in ms, 3 the cache's name,
--       4 (scoped caches) the generation that is part of the key
-- Answers {'hit', value, remaining life in ms}, {'lease', frontier, system identifier,
-- timeline}, {'wait', remaining life of another's lease in ms}, or {'closed'}: load, and
-- do not store.
local value = redis.call('GET', KEYS[1])
if value then
  return {'hit', value, redis.call('PTTL', KEYS[1])}
end
local state = redis.call('HMGET', KEYS[3], 'valid', 'closed', 'frontier', 'system_id', 'timeline')
-- A name is plain letters and underscores: in quotes it is found only as a whole.
if state[1] ~= '1' or string.find(state[2] or '', '"' .. ARGV[3] .. '"', 1, true) then
  return {'closed'}
end
if KEYS[4] and redis.call('GET', KEYS[4]) ~= ARGV[4] then
  return {'closed'}
end
local left = redis.call('PTTL', KEYS[2])
if left ~= -2 then
  return {'wait', left}
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return {'lease', state[3], state[4], state[5]}
